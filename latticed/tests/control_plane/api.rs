//! The HTTP API.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};
use serde_json::{Value, json};

use crate::server::{Server, start};

/// Sends bytes as they are, and reads until the server closes.
fn raw(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.http.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn workspaces_and_tokens_are_made_listed_and_revoked() {
    let (_dir, server) = start();
    let (status, workspace) = server.admin("POST", "/api/v1/workspaces", Some(json!({"name": "demo"})));
    assert_eq!((status, &workspace["name"]), (201, &json!("demo")));
    assert_eq!(server.admin("POST", "/api/v1/workspaces", Some(json!({"name": "demo"}))).0, 409);

    for workspace in [&json!("demo"), &workspace["id"]] {
        let body = json!({"workspace": workspace, "uses": 3, "ttlSeconds": 60});
        let (status, created) = server.admin("POST", "/api/v1/tokens", Some(body));
        assert_eq!((status, &created["uses"]), (201, &json!(3)));
        let token: lattice_wire::Token = created["token"].as_str().unwrap().parse().unwrap();
        assert_eq!(created["id"], token.id());
    }
    let (_, listed) = server.admin("GET", "/api/v1/tokens?workspace=demo", None);
    let listed = &listed["items"];
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(listed.as_array().unwrap().iter().all(|t| t.get("token").is_none() && t["used"] == 0));
    assert!(listed[0]["expiresAt"].as_str().unwrap().ends_with('Z'));

    let path = format!("/api/v1/tokens/{}", listed[0]["id"].as_str().unwrap());
    assert_eq!(server.admin("DELETE", &path, None), (204, Value::Null));
    assert_eq!(server.admin("GET", &path, None).1["revoked"], true);
}

#[test]
fn bad_requests_are_told_so() {
    let (_dir, server) = start();
    let post = |path: &str, body: Value| {
        let (status, body) = server.admin("POST", path, Some(body));
        assert!(body["detail"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
        assert_eq!(body["status"], status);
        let code = body["code"].as_str().unwrap().to_owned();
        assert_eq!(body["type"], format!("urn:lattice:problem:{code}"));
        (status, code)
    };
    for name in ["", "a/b", "..", "*", ">", "a\n", "ws-aaaaaaaaaaaaaaaa"] {
        assert_eq!(post("/api/v1/workspaces", json!({"name": name})), (400, "invalid".into()), "{name:?}");
    }
    assert_eq!(post("/api/v1/workspaces", json!({"name": "x".repeat(70_000)})), (413, "too_large".into()));
    assert_eq!(post("/api/v1/workspaces", json!({"nam": "x"})).0, 422);
    server.token("w", 1);
    for bad in [
        json!({"uses": 0}),
        json!({"uses": -1}),
        json!({"ttlSeconds": 0}),
        json!({"ttlSeconds": i64::MAX}),
        json!({"peerTtl": "1w"}),
        json!({"peerTtl": "1s"}),
        json!({"namePrefix": "A"}),
        json!({"namePrefix": ""}),
    ] {
        let mut body = json!({"workspace": "w"});
        body.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        assert_eq!(post("/api/v1/tokens", body), (400, "invalid".into()), "{bad}");
    }
    for bad in [
        json!({"preset": "open"}),
        json!({"labels": {"name": "x"}}),
        json!({"labels": {"a b": "x"}}),
        json!({"surplus": 1}),
    ] {
        let mut body = json!({"workspace": "w"});
        body.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        assert_eq!(post("/api/v1/tokens", body), (422, "invalid".into()), "{bad}");
    }
    let (_, refused) =
        server.admin("POST", "/api/v1/tokens", Some(json!({"workspace": "w", "preset": "open"})));
    let allowed = refused["detail"].as_str().unwrap();
    assert!(["sandboxed", "coordinator", "isolated"].iter().all(|p| allowed.contains(p)), "{allowed}");
    assert_eq!(post("/api/v1/tokens", json!({"workspace": "none"})), (404, "not_found".into()));
    for (method, path, status) in [
        ("GET", "/", 404),
        ("PUT", "/api/v1/tokens", 405),
        ("GET", "/api/v1/peers?workspace=none", 404),
        ("DELETE", "/api/v1/peers/..%2f", 400),
        ("DELETE", "/api/v1/peers/peer-aaaaaaaaaaaaaaaa", 404),
        ("DELETE", "/api/v1/tokens/none", 404),
        ("GET", "/api/v1/tokens?limit=0", 400),
        ("GET", "/api/v1/tokens?limit=1001", 400),
        ("GET", "/api/v1/tokens?limit=x", 400),
        ("GET", "/api/v1/tokens?unknown=1", 400),
        ("GET", "/api/v1/events?after=x", 400),
    ] {
        let (got, body) = server.admin(method, path, None);
        assert_eq!(got, status, "{method} {path}: {body}");
        assert!(body["code"].is_string(), "{method} {path}: {body}");
    }
}

#[test]
fn signaling_names_the_host_that_was_asked_for_and_no_other() {
    let (_dir, server) = start();
    let ask = |host: &str| {
        raw(&server, &format!("GET /api/v1/signaling HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    assert!(ask("lattice.example.com:8080").contains("\"nats://lattice.example.com:"));
    assert!(ask("[2001:db8::1]:8080").contains("\"nats://[2001:db8::1]:"));
    for bad in ["evil@example.com", "a/b", "a\"b", ""] {
        assert!(ask(bad).starts_with("HTTP/1.1 400"), "{bad:?}: {}", ask(bad));
    }
    assert!(raw(&server, "GET /api/v1/signaling HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 400"));

    let dir = tempfile::tempdir().unwrap();
    let url = "nats://nats.example.com:4222";
    let advertising = Server::start(dir.path(), &["--advertise-nats-url", url]);
    assert_eq!(advertising.signaling().nats_url, url);
}

/// A connection from another loopback address.
pub fn connect_from(server: &Server, from: [u8; 4]) -> TcpStream {
    let to: SocketAddrV4 = server.http.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from.into(), 0))).unwrap();
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn one_host_that_holds_connections_keeps_no_other_out() {
    let (_dir, server) = start();
    let held: Vec<_> = (0..600)
        .map(|n| {
            let mut stream = connect_from(&server, [127, 0, 0, 2]);
            // Some say nothing, some never finish.
            let _ = stream.write_all(if n % 2 == 0 { b"GET /heal" } else { b"" });
            stream
        })
        .collect();
    let mut other = connect_from(&server, [127, 0, 0, 3]);
    other.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(held);
}

#[test]
fn ten_thousand_requests_cost_no_memory() {
    let (_dir, server) = start();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let ask = |count: usize| {
        for batch in 0..count / 100 {
            let mut stream = connect_from(&server, [127, 0, 1, (batch % 250) as u8]);
            let paths = ["/healthz", "/api/v1/signaling", "/api/v1/peers", "/none"];
            for n in 0..100 {
                let close = if n == 99 { "Connection: close\r\n" } else { "" };
                let request = format!("GET {} HTTP/1.1\r\nHost: a\r\n{close}\r\n", paths[n % 4]);
                stream.write_all(request.as_bytes()).unwrap();
            }
            let mut answers = Vec::new();
            stream.read_to_end(&mut answers).unwrap();
            assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1 ").count(), 100);
        }
    };
    ask(2_000);
    let before = resident();
    ask(10_000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more than {before} KiB");
    assert_eq!(server.admin("GET", "/api/v1/workspaces", None).0, 200);
}

#[test]
fn strangers_are_slowed_down_and_the_administrator_is_not() {
    let (_dir, server) = start();
    server.api_token();
    let slowed = (0..5000).find_map(|_| {
        let (status, body) = server.request("GET", "/api/v1/signaling", None, None);
        (status != 200).then_some((status, body["code"].clone()))
    });
    assert_eq!(slowed, Some((429, json!("rate_limited"))));
    // While one answer is on its way, a slow machine may have earned another request.
    let ask = || raw(&server, "GET /api/v1/signaling HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = (0..5000).map(|_| ask()).find(|answer| answer.starts_with("HTTP/1.1 429"));
    assert!(answer.unwrap().to_lowercase().contains("retry-after: 1\r\n"));
    for probe in ["/healthz", "/readyz"] {
        assert!((0..100).all(|_| server.request("GET", probe, None, None).0 == 200), "{probe}");
    }
    assert_eq!(server.admin("GET", "/api/v1/workspaces", None).0, 200);
}
