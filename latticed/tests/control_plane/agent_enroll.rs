//! Enrolment over HTTP.

use lattice_wire::message::RefusalCode;
use serde_json::{Value, json};

use crate::{
    clock::Clock,
    peer::{Peer, public_key, pushed, refused},
    server::{Server, start},
};

fn ask(server: &Server, token: &str, body: Value) -> (u16, Value) {
    server.request("POST", "/api/v1/agent-enroll", Some(token), Some(body))
}

fn token(server: &Server, more: Value) -> String {
    server.admin("POST", "/api/v1/workspaces", Some(json!({"name": "w"})));
    let mut body = json!({"workspace": "w"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, made) = server.admin("POST", "/api/v1/tokens", Some(body));
    assert_eq!(status, 201, "{made}");
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_agent_with_a_key_is_a_member_at_once() {
    let (_dir, server) = start();
    let member = Peer::enroll(&server, "member", &server.token("w", 1)).await;
    let tool = format!("/api/v1/peers/{}/labels", member.id());
    assert_eq!(server.admin("PUT", &tool, Some(json!({"labels": {"role": "tool"}}))).0, 200);
    Peer::enroll(&server, "stranger", &server.token("w", 1)).await;
    let mut pushes = member.pushes().await;
    let lt = token(&server, json!({}));
    let key = public_key();
    let body = json!({"agentName": "agent-001", "agentType": "coder", "workspaceId": "w", "ttl": "1h",
        "policyPreset": "sandboxed", "publicKey": key});
    let (status, made) = ask(&server, &lt, body);
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["overlayIP"], "10.42.0.4/32");
    assert!(made["expiresAt"].as_str().unwrap().ends_with('Z'));
    let config = made["wireguardConfig"].as_str().unwrap();
    assert!(
        config.contains("Address = 10.42.0.4/32") && config.contains("AllowedIPs = 10.42.0.2/32"),
        "{config}"
    );
    let v6 = made["overlayIPv6"].as_str().unwrap();
    assert!(v6.starts_with("fd") && v6.ends_with("::a2a:4/128"), "{v6}");
    assert!(config.contains(&format!("Address = 10.42.0.4/32, {v6}\n")), "{config}");
    let tools = v6.replace("a2a:4/", "a2a:2/");
    assert!(config.contains(&format!("AllowedIPs = 10.42.0.2/32, {tools}\n")), "{config}");
    let peer = server.admin("GET", &format!("/api/v1/peers/{}", made["peerId"].as_str().unwrap()), None).1;
    assert_eq!(format!("{}/128", peer["address6"].as_str().unwrap()), v6);
    let all = server.admin("GET", "/api/v1/workspaces", None).1;
    let own = all["items"].as_array().unwrap().iter().find(|one| one["name"] == "w").unwrap();
    assert_eq!(format!("{}a2a:4/128", own["prefix"].as_str().unwrap().trim_end_matches("/48")), v6);
    assert!(!config.contains("10.42.0.3"), "its preset keeps it apart from who is no tool: {config}");
    assert!(!config.lines().any(|line| line.starts_with("PrivateKey")));
    let map = pushed(&mut pushes, "the agent", |map| map.peers.len() == 2).await;
    assert_eq!((map.peers[1].public_key, map.peers[1].not_after.is_some()), (key, true));

    // Its own token opens this peer, and admits nobody.
    let own = made["enrollmentToken"].as_str().unwrap();
    let path = format!("/api/v1/peers/{}", made["peerId"].as_str().unwrap());
    let (status, peer) = server.request("GET", &path, Some(own), None);
    assert_eq!(
        (status, &peer["preset"], &peer["agentType"], &peer["labels"]),
        (200, &json!("sandboxed"), &json!("coder"), &json!({})),
        "who holds an enrollment token does not choose its labels"
    );
    assert_eq!(refused(&server, "agent-001", own).await, RefusalCode::TokenUsed);
    let (status, renewed) = server.request("POST", &format!("{path}/renew"), Some(own), None);
    assert_eq!((status, renewed["expiresAt"].is_string()), (200, true));
    assert_eq!(server.request("DELETE", &path, Some(own), None).0, 204);
    pushed(&mut pushes, "it is gone", |map| map.peers.len() == 1).await;
    assert_eq!(server.request("GET", &path, Some(own), None).0, 404);
}

#[tokio::test]
async fn a_reserved_place_is_taken_by_the_agent_that_it_is_for() {
    let (_dir, server) = start();
    let lt = token(&server, json!({"labels": {"team": "red"}, "peerTtl": "1h"}));
    let (status, made) = ask(&server, &lt, json!({"agentName": "late", "workspaceId": "w"}));
    assert_eq!((status, &made["wireguardConfig"]), (201, &Value::Null), "{made}");
    let own = made["enrollmentToken"].as_str().unwrap();
    let path = format!("/api/v1/peers/{}", made["peerId"].as_str().unwrap());
    let peer = server.admin("GET", &path, None).1;
    assert_eq!((&peer["reserved"], &peer["labels"]["team"]), (&json!(true), &json!("red")));
    assert!(peer["expiresAt"].is_string(), "the token's time for peers holds");

    assert_eq!(refused(&server, "other", own).await, RefusalCode::NameRefused);
    let late = Peer::enroll(&server, "late", own).await;
    assert_eq!(late.id().as_str(), made["peerId"]);
    assert_eq!(format!("{}", late.grant.address), made["overlayIP"].as_str().unwrap());
    assert_eq!(server.admin("GET", &path, None).1["reserved"], false);
}

#[tokio::test]
async fn the_same_request_with_the_same_key_is_answered_with_the_same_peer() {
    let (_dir, server) = start();
    let lt = token(&server, json!({}));
    let ask = |keys: &[&str], body: &Value| {
        let headers: Vec<_> = keys.iter().map(|key| ("idempotency-key", *key)).collect();
        server.request_with("POST", "/api/v1/agent-enroll", Some(&lt), Some(body.clone()), &headers)
    };
    let body = json!({"agentName": "a", "workspaceId": "w", "publicKey": public_key()});
    let (status, first) = ask(&["one"], &body);
    assert_eq!(status, 201, "{first}");
    // The answer was lost, and the one use of the token is spent.
    let (status, again) = ask(&["one"], &body);
    assert_eq!(status, 201, "{again}");
    for same in ["peerId", "overlayIP", "wireguardConfig", "expiresAt"] {
        assert_eq!(first[same], again[same], "{same}");
    }
    let path = format!("/api/v1/peers/{}", first["peerId"].as_str().unwrap());
    let open = |answer: &Value| server.request("GET", &path, answer["enrollmentToken"].as_str(), None).0;
    assert_eq!((open(&first), open(&again)), (401, 200), "the token of the lost answer is revoked");

    let other = json!({"agentName": "b", "workspaceId": "w", "publicKey": public_key()});
    let (status, refused) = ask(&["one"], &other);
    assert_eq!((status, &refused["code"]), (422, &json!("idempotency_key_reused")));
    assert_eq!(ask(&["two"], &body).1["code"], "token_used");
    assert_eq!(ask(&[], &body).1["code"], "token_used");
    for bad in [&["", ""][..1], &["a", "b"], &[&"x".repeat(256)], &["\u{e4}"]] {
        assert_eq!(ask(bad, &body).0, 400, "{bad:?}");
    }
    assert_eq!(server.peers().len(), 1);
    assert_eq!(server.request("DELETE", &path, again["enrollmentToken"].as_str(), None).0, 204);
    let (status, gone) = ask(&["one"], &body);
    assert_eq!((status, &gone["code"]), (409, &json!("peer_gone")));
}

#[test]
fn a_spent_token_is_a_conflict_and_an_event() {
    let (_dir, server) = start();
    let lt = token(&server, json!({}));
    let body = |name: &str| json!({"agentName": name, "workspaceId": "w", "publicKey": public_key()});
    assert_eq!(ask(&server, &lt, body("a")).0, 201);
    let (status, refused) = ask(&server, &lt, body("b"));
    assert_eq!((status, &refused["code"]), (409, &json!("token_used")));
    assert_eq!(
        ask(&server, &lt, json!({"agentName": "c", "workspaceId": "w"})).0,
        409,
        "for a place as well"
    );
    let events = server.admin("GET", "/api/v1/events", None).1;
    let replays =
        events["items"].as_array().unwrap().iter().filter(|e| e["kind"] == "token.replayed").count();
    assert_eq!(replays, 2);
    assert_eq!(server.peers().len(), 1);
}

#[test]
fn a_token_is_a_cap() {
    let (_dir, server) = start();
    let body = |more: Value| {
        let mut body = json!({"agentName": "pre-a", "workspaceId": "w", "publicKey": public_key()});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let capped =
        token(&server, json!({"uses": 9, "preset": "isolated", "peerTtl": "1h", "namePrefix": "pre-"}));
    for (more, status) in [
        (json!({"policyPreset": "coordinator"}), 403),
        (json!({"ttl": "2h"}), 403),
        (json!({"agentName": "other"}), 403),
        (json!({"workspaceId": "none"}), 404),
        (json!({"ttl": "1s"}), 400),
        (json!({"ttl": "367d"}), 400),
        (json!({"agentType": "a b"}), 400),
        (json!({"agentName": "a/b"}), 400),
        (json!({"policyPreset": "open"}), 422),
        (json!({"publicKey": "x"}), 422),
        (json!({"surplus": 1}), 422),
        (json!({"policyPreset": "isolated", "ttl": "30m"}), 201),
        (json!({"policyPreset": "isolated", "ttl": "30m"}), 409),
        (json!({"agentName": "pre-b"}), 201),
    ] {
        let (got, answer) = ask(&server, &capped, body(more.clone()));
        assert_eq!(got, status, "{more}: {answer}");
    }
    assert!(server.peers().iter().all(|peer| peer["preset"] == "isolated" && peer["expiresAt"].is_string()));
    let free = token(&server, json!({}));
    assert_eq!(ask(&server, &free, body(json!({"agentName": "c", "policyPreset": "coordinator"}))).0, 201);
}

#[test]
fn a_token_that_is_used_too_often_is_told_to_wait() {
    let Some(clock) = Clock::new() else { return };
    let server = clock.start(&[]);
    let lt = token(&server, json!({}));
    // However slow this host is, none of its uses comes back.
    clock.freeze(true);
    let limited = (0..=256).find_map(|_| {
        let (status, body) = ask(&server, &lt, json!({}));
        (status == 429).then_some(body)
    });
    clock.freeze(false);
    assert_eq!(limited.unwrap()["code"], "rate_limited");
    assert_eq!(server.admin("GET", "/api/v1/whoami", None).0, 200);
}
