//! What is malformed, too big, too often or cut off in the middle: a typed answer, and nothing half done.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use lattice_wire::{
    MapUpdate,
    message::RefusalCode,
    subject::{self, PeerVerb},
};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};

use crate::{
    cluster,
    peer::{Peer, ask_to_enroll, bootstrap, public_key, refused, request},
    server::{Server, start, wait_until},
};

/// A request as it is on the line.
fn raw(method: &str, path: &str, token: &str, kind: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn connection(server: &Server) -> TcpStream {
    TcpStream::connect(server.http.strip_prefix("http://").unwrap()).unwrap()
}

/// The status, the header and the body of the answer.
fn answer(server: &Server, request: &str) -> (u16, String, Value) {
    let mut stream = connection(server);
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Everything that an administrator sees, but the events of what was refused.
fn all(server: &Server) -> Vec<Value> {
    ["workspaces", "tokens", "peers", "policies", "admin-tokens"]
        .map(|list| server.admin("GET", &format!("/api/v1/{list}"), None).1)
        .into()
}

#[test]
fn no_route_takes_what_is_malformed() {
    let (_dir, server) = start();
    server.token("w", 1);
    let body = json!({"agentName": "a", "workspaceId": "w", "publicKey": public_key()});
    let made = server.admin("POST", "/api/v1/agent-enroll", Some(body)).1;
    let labels = format!("/api/v1/peers/{}/labels", made["peerId"].as_str().unwrap());
    let (token, before) = (server.api_token(), all(&server));
    let (big, deep) = (format!("\"{}\"", "x".repeat(70_000)), "[".repeat(60_000));
    for (method, path) in [
        ("POST", "/api/v1/workspaces"),
        ("POST", "/api/v1/tokens"),
        ("POST", "/api/v1/agent-enroll"),
        ("POST", "/api/v1/policies"),
        ("POST", "/api/v1/policies/explain"),
        ("POST", "/api/v1/admin-tokens"),
        ("PUT", &labels),
    ] {
        for (kind, body, expected) in [
            ("application/json", "", 400),
            ("application/json", "{", 400),
            ("application/json", &deep, 422),
            ("application/json", "null", 422),
            ("application/json", "\"x\"", 422),
            ("application/json", "{}", 422),
            ("application/json", "{\"surplus\":\"\\u001b[2J\"}", 422),
            ("application/json", &big, 413),
            ("text/plain", "{}", 415),
        ] {
            let (status, head, problem) = answer(&server, &raw(method, path, &token, kind, body));
            let shown: String = body.chars().take(30).collect();
            // A deep one is the wrong type before it is too deep, or not.
            let status = if body == deep && status == 400 { 422 } else { status };
            assert_eq!(status, expected, "{method} {path} {shown}: {problem}");
            assert!(head.contains("application/problem+json"), "{method} {path} {shown}: {head}");
            assert!(
                problem["code"].is_string() && problem["detail"].as_str().unwrap().len() < 1000,
                "{problem}"
            );
        }
    }
    assert_eq!(all(&server), before);
}

#[tokio::test]
async fn no_subject_takes_what_is_malformed() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let peer = Peer::enroll(&server, "a", &token).await;
    let before = all(&server);
    for junk in ["{", "null", "[{}]", "\"x\"", "{\"have\":-1,\"endpoints\":0}", "\u{0}", "{\"have\":{}}"] {
        for verb in [PeerVerb::Netmap, PeerVerb::Heartbeat] {
            let answer = peer.link.ask::<Value>(&subject::peer(peer.id(), verb), junk.as_bytes()).await;
            assert_eq!(answer, Err(RefusalCode::Malformed), "{verb:?} {junk}");
        }
        let newcomer = bootstrap(&server.signaling()).await;
        let answer = newcomer.ask::<Value>(subject::ENROLL, junk.as_bytes()).await;
        assert_eq!(answer, Err(RefusalCode::Malformed), "enrol {junk}");
    }
    assert_eq!(refused(&server, "a", "lt-x").await, RefusalCode::TokenUnknown);
    assert_eq!(refused(&server, "b", "").await, RefusalCode::PeerUnknown);
    assert_eq!(all(&server), before);
    assert!(peer.netmap().await.is_ok());
}

/// Else a hostile client would do what nobody is told of: not the events, not the peers.
#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_what_it_began() {
    let (dir, server) = start();
    let token = server.api_token();
    let file = format!("sqlite://{}", dir.path().join("lattice.db").display());
    let mut other = SqliteConnection::connect(&file).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let mut stream = connection(&server);
    let body = json!({"name": "unseen"}).to_string();
    stream
        .write_all(raw("POST", "/api/v1/workspaces", &token, "application/json", &body).as_bytes())
        .unwrap();
    // One thread answers everybody in turn: it waits for the database by now, then it sees that the client is gone.
    let turns = || (0..10).for_each(|_| assert_eq!(server.admin("GET", "/api/v1/whoami", None).0, 200));
    turns();
    drop(stream);
    turns();
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    wait_until("it is written down", || {
        let events = server.admin("GET", "/api/v1/events", None).1;
        events["items"].as_array().unwrap().iter().any(|event| event["kind"] == "workspace.created")
    });
}

#[tokio::test]
async fn a_database_that_is_away_is_said_so_at_every_door() {
    let Some(cluster) = cluster::Cluster::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--database-url", &cluster.database().await]);
    let token = server.token("w", 5);
    let peer = Peer::enroll(&server, "a", &token).await;
    let newcomer = bootstrap(&server.signaling()).await;
    let admin = server.api_token();
    cluster.crash();
    for (method, path, body) in [
        ("GET", "/api/v1/peers", String::new()),
        ("POST", "/api/v1/workspaces", json!({"name": "x"}).to_string()),
        ("GET", "/readyz", String::new()),
    ] {
        let (status, head, problem) = answer(&server, &raw(method, path, &admin, "application/json", &body));
        assert_eq!((status, &problem["code"]), (503, &json!("unavailable")), "{method} {path}: {problem}");
        assert!(head.contains("\r\nretry-after: "), "{head}");
    }
    assert_eq!(ask_to_enroll(&newcomer, &request("b", &token).0).await.err(), Some(RefusalCode::Unavailable));
    assert_eq!(peer.netmap().await.err(), Some(RefusalCode::Unavailable));
    cluster.restart();
    assert!(peer.netmap().await.is_ok());
    assert!(ask_to_enroll(&newcomer, &request("b", &token).0).await.is_ok());
}

#[test]
fn a_leaked_token_does_not_flood_the_events() {
    let (_dir, server) = start();
    let token = server.token("w", 1);
    let enrol = |name: &str| {
        let body = json!({"agentName": name, "workspaceId": "w", "publicKey": public_key()});
        server.request("POST", "/api/v1/agent-enroll", Some(&token), Some(body)).0
    };
    assert_eq!(enrol("a"), 201);
    assert!((0..30).all(|_| enrol("b") == 409));
    let events = server.admin("GET", "/api/v1/events?limit=1000", None).1;
    let kinds: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "token.replayed").count(), 8);
    assert!(kinds.contains(&json!("peer.enrolled")));
}

#[tokio::test]
async fn a_peer_gets_so_many_maps_and_is_told_what_is_current_all_the_same() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let (greedy, other) =
        (Peer::enroll(&server, "greedy", &token).await, Peer::enroll(&server, "other", &token).await);
    let have = greedy.netmap().await.unwrap().version();
    let mut refused = None;
    for _ in 0..30 {
        refused = refused.or(greedy.map_since(None).await.err());
    }
    assert_eq!(refused, Some(RefusalCode::RateLimited));
    assert_eq!(greedy.map_since(Some(have)).await, Ok(MapUpdate::Current));
    assert!(other.netmap().await.is_ok());
}

#[test]
fn a_token_makes_none_that_outlives_it() {
    let (_dir, server) = start();
    let make = |by: &str, more: Value| {
        let mut body = json!({"name": "x", "role": "admin"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.request("POST", "/api/v1/admin-tokens", Some(by), Some(body))
    };
    let (status, short) = make(&server.api_token(), json!({"ttl": "1h"}));
    assert_eq!(status, 201, "{short}");
    let by = short["token"].as_str().unwrap();
    assert_eq!(make(by, json!({"ttl": "2h"})).0, 403);
    let (status, made) = make(by, json!({}));
    assert_eq!((status, &made["expiresAt"]), (201, &short["expiresAt"]));
    assert_eq!(make(by, json!({"ttl": "1m"})).0, 201);

    // Whoever administers a workspace reads that a token of it was revoked, and by whom.
    server.token("w", 1);
    let bound = make(by, json!({"workspace": "w"})).1;
    let path = format!("/api/v1/admin-tokens/{}", bound["id"].as_str().unwrap());
    assert_eq!(server.admin("DELETE", &path, None).0, 204);
    let events = server.admin("GET", "/api/v1/events?workspace=w", None).1;
    assert_eq!(events["items"][0]["kind"], "admin_token.revoked");
}

#[test]
fn who_comes_through_a_proxy_is_not_local() {
    let (_dir, server) = start();
    let ask = |header: &str| {
        answer(&server, &format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{header}Connection: close\r\n\r\n")).0
    };
    assert_eq!(ask(""), 200);
    for header in ["Forwarded: for=192.0.2.1", "Via: 1.1 p", "X-Forwarded-For: 127.0.0.1", "X-Real-IP: ::1"] {
        assert_eq!(ask(&format!("{header}\r\n")), 401, "{header}");
    }
}

#[test]
fn a_workspace_has_so_many_rules_and_a_question_is_asked_so_often() {
    let (_dir, server) = start();
    server.token("w", 1);
    let policy = |name: &str, rules: usize| {
        let rules: Vec<_> = (1..=rules)
            .map(|port| json!({"direction": "egress", "action": "deny", "rule": format!("tcp:{{}}:{port}")}))
            .collect();
        let body = json!({"workspace": "w", "policy": {"name": name, "rules": rules}});
        server.admin("POST", "/api/v1/policies", Some(body))
    };
    for n in 0..4 {
        assert_eq!(policy(&format!("p{n}"), 256).0, 201);
    }
    let (status, refused) = policy("one-more", 1);
    assert_eq!((status, &refused["code"]), (409, &json!("conflict")), "{refused}");
    assert_eq!(policy("p0", 1).1["detail"].as_str().unwrap().split(' ').next(), Some("there"));

    let question = json!({"workspace": "w", "peer": "none", "direction": "egress", "protocol": "icmp", "address": "10.42.0.9"});
    let slowed = (0..200).find_map(|_| {
        let (status, body) = server.admin("POST", "/api/v1/policies/explain", Some(question.clone()));
        (status != 404).then_some((status, body["code"].clone()))
    });
    assert_eq!(slowed, Some((429, json!("rate_limited"))));
    assert_eq!(server.admin("GET", "/api/v1/whoami", None).0, 200);
}
