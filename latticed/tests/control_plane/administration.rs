//! Logging in, and what an administrator reads and writes.

use std::{fs, process::Command};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    peer::public_key,
    server::{Server, start},
};

fn enrolled(server: &Server, name: &str, more: Value) -> Value {
    let mut body = json!({"agentName": name, "workspaceId": "w", "publicKey": public_key()});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, made) = server.admin("POST", "/api/v1/agent-enroll", Some(body));
    assert_eq!(status, 201, "{made}");
    made
}

#[test]
fn a_one_time_token_logs_in_once_and_opens_nothing_else() {
    let (dir, server) = start();
    let one_time = fs::read_to_string(dir.path().join("admin-token")).unwrap();
    let login =
        |token: &str| server.request("POST", "/api/v1/login", Some(token), Some(json!({"name": "first"})));
    assert_eq!(server.request("GET", "/api/v1/whoami", Some(&one_time), None).0, 401);
    // Of many at the same time, one.
    let made: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8).map(|_| scope.spawn(|| login(&one_time))).collect();
        tries.into_iter().map(|each| each.join().unwrap()).collect()
    });
    let mut good = made.iter().filter(|(status, _)| *status == 201);
    let token = good.next().unwrap().1["token"].as_str().unwrap();
    assert!(good.next().is_none());
    assert!(made.iter().all(|(status, _)| matches!(status, 201 | 401)));
    let (status, who) = server.request("GET", "/api/v1/whoami", Some(token), None);
    assert_eq!((status, &who["name"], &who["role"]), (200, &json!("first"), &json!("admin")));
    assert!(who.get("token").is_none());
    // An API token is none of these.
    assert_eq!(login(token).0, 401);

    // No other is made at the next start; a new one is, when it is asked for.
    fs::remove_file(dir.path().join("admin-token")).unwrap();
    let token = token.to_owned();
    let (_, log) = server.end(Signal::SIGTERM);
    assert!(log.contains("admin-token") && !log.contains(&one_time) && !log.contains(&token), "{log}");
    let server = Server::start(dir.path(), &[]);
    assert!(!dir.path().join("admin-token").exists());
    let output = Command::new(env!("CARGO_BIN_EXE_latticed"))
        .args(["admin-token", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = fs::read_to_string(dir.path().join("admin-token")).unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains(&again), "only its place is printed");
    let (status, _) = server.request("POST", "/api/v1/login", Some(&again), Some(json!({"name": "second"})));
    assert_eq!(status, 201);
    assert_eq!(server.request("GET", "/api/v1/whoami", Some(&token), None).0, 200, "the first is still good");
}

#[test]
fn lists_come_in_pages_that_miss_nothing() {
    let (_dir, server) = start();
    server.token("w", 1);
    for n in 0..7 {
        server.token("w", 1);
        enrolled(&server, &format!("p{n}"), json!({}));
    }
    for (path, all) in
        [("tokens", 7 + 8), ("peers", 7), ("admin-tokens", 2), ("workspaces", 1), ("policies", 0)]
    {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let (status, page) = server.admin("GET", &format!("/api/v1/{path}?limit=3{after}"), None);
            assert_eq!(status, 200, "{page}");
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 3);
            seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        let once: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), once.len()), (all, all), "{path}");
    }
}

#[test]
fn events_say_who_did_what_newest_first() {
    let (_dir, server) = start();
    server.token("w", 1);
    let made = enrolled(&server, "a", json!({}));
    let path = format!("/api/v1/peers/{}", made["peerId"].as_str().unwrap());
    assert_eq!(server.admin("DELETE", &path, None).0, 204);
    let events = server.admin("GET", "/api/v1/events?limit=2", None).1;
    let kinds: Vec<_> = events["items"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(kinds, ["peer.removed", "peer.enrolled"]);
    let me = server.admin("GET", "/api/v1/whoami", None).1["id"].as_str().unwrap().to_owned();
    assert_eq!(events["items"][0]["actor"], format!("la-{me}"));
    let next = events["next"].as_str().unwrap();
    let older = server.admin("GET", &format!("/api/v1/events?after={next}"), None).1;
    let kinds: Vec<_> = older["items"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(kinds, ["token.created", "workspace.created", "admin.login"]);
}

#[test]
fn a_flow_to_a_name_is_explained() {
    let (_dir, server) = start();
    server.token("w", 1);
    enrolled(&server, "agent", json!({}));
    let policy = json!({"name": "web", "selector": "", "description": "", "rules": [
        {"direction": "egress", "action": "allow", "rule": "tcp:*.example.com:443"},
        {"direction": "egress", "action": "deny", "rule": "no.example.com"},
    ]});
    let (status, made) =
        server.admin("POST", "/api/v1/policies", Some(json!({"workspace": "w", "policy": policy})));
    assert_eq!((status, &made["policy"]), (201, &policy));
    let ask = |what: Value| {
        let mut question = json!({"workspace": "w", "peer": "agent", "direction": "egress", "protocol": "tcp", "port": 443,
            "egressAllow": ["*.example.com", "10.42.0.0/16"]});
        question.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        server.admin("POST", "/api/v1/policies/explain", Some(question))
    };
    let says = |answer: &Value, layer: &str| {
        let opinion = answer["opinions"].as_array().unwrap().iter().find(|o| o["layer"] == layer).unwrap();
        format!("{} {}", opinion["action"], opinion["rule"])
    };
    let (status, answer) = ask(json!({"name": "API.example.com."}));
    assert_eq!((status, &answer["action"]), (200, &json!("allow")), "{answer}");
    assert_eq!(answer["rule"], "tcp:*.example.com:443 (policy web)");
    assert_eq!(says(&answer, "policies"), r#""allow" "tcp:*.example.com:443""#);
    assert_eq!(says(&answer, "resolver"), r#""allow" "tcp:*.example.com:443 (policy web)""#);

    let (_, answer) = ask(json!({"name": "no.example.com"}));
    assert_eq!((&answer["action"], &answer["reason"]), (&json!("deny"), &json!("name")), "{answer}");
    assert_eq!(says(&answer, "resolver"), r#""deny" "no.example.com (policy web)""#);
    for other in [json!({"name": "example.com"}), json!({"name": "a.example.com", "port": 80})] {
        assert_eq!(ask(other.clone()).1["action"], "deny", "{other}");
    }

    for bad in [
        json!({}),
        json!({"name": "a.example.com", "address": "10.42.0.1"}),
        json!({"name": "*.example.com"}),
        json!({"name": "127.1"}),
        json!({"name": "a.example.com\u{0}"}),
        json!({"name": "a.example.com", "direction": "ingress"}),
        json!({"name": "a.example.com", "protocol": "icmp"}),
        json!({"name": "a.example.com", "port": null}),
    ] {
        let (status, refused) = ask(bad.clone());
        assert_eq!((status, &refused["code"]), (400, &json!("invalid")), "{bad}: {refused}");
    }
}

#[test]
fn labels_and_policies_are_written_and_explained() {
    let (_dir, server) = start();
    server.token("w", 1);
    let tool = enrolled(&server, "tool", json!({}));
    enrolled(&server, "agent", json!({"policyPreset": "sandboxed", "agentType": "coder"}));
    let path = format!("/api/v1/peers/{}", tool["peerId"].as_str().unwrap());
    let question = json!({
        "workspace": "w", "peer": "agent", "direction": "egress", "egressAllow": ["10.42.0.0/16"],
        "protocol": "tcp", "address": tool["overlayIP"].as_str().unwrap().trim_end_matches("/32"), "port": 8080,
    });
    let ask = |question| server.admin("POST", "/api/v1/policies/explain", Some(question)).1;
    let explain = || {
        let mut by_ipv6 = question.clone();
        by_ipv6["address"] = tool["overlayIPv6"].as_str().unwrap().trim_end_matches("/128").into();
        let (answer, same) = (ask(question.clone()), ask(by_ipv6));
        assert_eq!(answer, same, "of its IPv6 address the same is said");
        answer
    };
    assert_eq!(explain()["action"], "deny", "{}", explain());

    let labels = json!({"labels": {"role": "tool"}});
    let (status, peer) = server.admin("PUT", &format!("{path}/labels"), Some(labels.clone()));
    assert_eq!((status, &peer["labels"]), (200, &labels["labels"]));
    let opinions = explain();
    assert_eq!(opinions["action"], "allow", "{opinions}");
    assert!(opinions["opinions"].as_array().unwrap().iter().any(|o| o["layer"] == "preset sandboxed"));
    assert_eq!(opinions["reason"], "rule-allow", "{opinions}");
    assert!(opinions["rule"].as_str().unwrap().ends_with("(preset sandboxed)"), "{opinions}");
    let generation = opinions["generation"].as_u64().unwrap();

    let policy = json!({"name": "no-tools", "selector": "agent-type=coder", "description": "",
        "rules": [{"direction": "egress", "action": "deny", "rule": "tcp:{role=tool}:8080"}]});
    let body = json!({"workspace": "w", "policy": policy, "ttl": "1h"});
    let (status, made) = server.admin("POST", "/api/v1/policies", Some(body.clone()));
    assert_eq!((status, &made["policy"]), (201, &policy));
    assert_eq!(server.admin("POST", "/api/v1/policies", Some(body)).0, 409);
    let opinions = explain();
    assert_eq!(opinions["action"], "deny");
    assert!(opinions["opinions"].as_array().unwrap().iter().any(|o| o["policy"] == "no-tools"), "{opinions}");
    assert!(opinions["rule"].as_str().unwrap().ends_with("(policy no-tools)"), "{opinions}");
    assert!(opinions["generation"].as_u64().unwrap() > generation, "a policy makes another map: {opinions}");

    let one = "/api/v1/policies/no-tools?workspace=w";
    assert_eq!(server.admin("GET", one, None).1["policy"], policy);
    assert_eq!(server.admin("DELETE", one, None).0, 204);
    assert_eq!(server.admin("DELETE", one, None).0, 404);
    assert_eq!(explain()["action"], "allow");

    let by_name = |direction: &str| json!({"name": "x", "rules": [{"direction": direction, "action": "deny", "rule": "a.example.com"}]});
    for bad in [
        json!({"name": "X", "rules": []}),
        json!({"name": "x", "rules": [{}]}),
        json!({"name": "x"}),
        by_name("ingress"),
    ] {
        let (status, refused) =
            server.admin("POST", "/api/v1/policies", Some(json!({"workspace": "w", "policy": bad})));
        assert_eq!(status, 422, "{bad}: {refused}");
    }
    assert_eq!(server.admin("PUT", &format!("{path}/labels"), Some(json!({"labels": {"kind": "x"}}))).0, 422);
}

#[test]
fn metrics_count_what_happened() {
    let (_dir, server) = start();
    server.token("w", 1);
    enrolled(&server, "a", json!({}));
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let text =
        agent.get(format!("{}/metrics", server.http)).call().unwrap().body_mut().read_to_string().unwrap();
    for line in [
        r#"lattice_http_requests_total{method="POST",route="/api/v1/agent-enroll",status="201"} 1"#,
        r#"lattice_enrolments_total{result="granted"} 1"#,
        r#"lattice_peers{state="reserved"} 0"#,
        "lattice_nats_connected 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
}
