//! Every route, with every kind of caller.

use std::{
    cell::Cell,
    io::{Read as _, Write as _},
    process::Command,
};

use lattice_wire::{AdminToken, Token};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};

use crate::{
    api::connect_from,
    peer::{public_key, random},
    server::{Server, start},
};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Viewer,
    Operator,
    Admin,
}
use Role::{Admin, Operator, Viewer};

/// What a route asks for, written down a second time and on purpose.
#[derive(Clone, Copy)]
enum Access {
    Open,
    Local,
    OneTime,
    /// The role; and whether the request names something in workspace `a`.
    Role(Role, bool),
    Global(Role),
    Enroll(Role),
    Peer(Role),
}

#[rustfmt::skip]
const ROUTES: [(&str, &str, Access); 31] = [
    ("GET",    "/healthz",                   Access::Open),
    ("GET",    "/readyz",                    Access::Open),
    ("GET",    "/metrics",                   Access::Local),
    ("GET",    "/api/v1/openapi.json",       Access::Open),
    ("GET",    "/api/v1/ca",                 Access::Open),
    ("GET",    "/api/v1/signaling",          Access::Open),
    ("GET",    "/api/v1/relay-key",          Access::Open),
    ("GET",    "/api/v1/whoami",             Access::Role(Viewer, false)),
    ("GET",    "/api/v1/admin-tokens",       Access::Role(Admin, false)),
    ("POST",   "/api/v1/admin-tokens",       Access::Role(Admin, true)),
    ("DELETE", "/api/v1/admin-tokens/{id}",  Access::Role(Admin, true)),
    ("GET",    "/api/v1/workspaces",         Access::Role(Viewer, false)),
    ("POST",   "/api/v1/workspaces",         Access::Global(Admin)),
    ("GET",    "/api/v1/tokens",             Access::Role(Viewer, false)),
    ("POST",   "/api/v1/tokens",             Access::Role(Operator, true)),
    ("GET",    "/api/v1/tokens/{id}",        Access::Role(Viewer, true)),
    ("DELETE", "/api/v1/tokens/{id}",        Access::Role(Operator, true)),
    ("POST",   "/api/v1/agent-enroll",       Access::Enroll(Operator)),
    ("GET",    "/api/v1/peers",              Access::Role(Viewer, false)),
    ("GET",    "/api/v1/peers/{id}",         Access::Peer(Viewer)),
    ("DELETE", "/api/v1/peers/{id}",         Access::Peer(Operator)),
    ("POST",   "/api/v1/peers/{id}/renew",   Access::Peer(Operator)),
    ("PUT",    "/api/v1/peers/{id}/labels",  Access::Role(Operator, true)),
    ("GET",    "/api/v1/policies",           Access::Role(Viewer, false)),
    ("POST",   "/api/v1/policies",           Access::Role(Operator, true)),
    ("POST",   "/api/v1/policies/explain",   Access::Role(Viewer, true)),
    ("GET",    "/api/v1/policies/{name}",    Access::Role(Viewer, true)),
    ("DELETE", "/api/v1/policies/{name}",    Access::Role(Operator, true)),
    ("GET",    "/api/v1/events",             Access::Role(Admin, false)),
    ("GET",    "/api/v1/events?workspace=a", Access::Role(Admin, true)),
    // Last: it consumes the one-time token.
    ("POST",   "/api/v1/login",              Access::OneTime),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    All,
    A,
    B,
}

enum Who {
    Nobody,
    /// A token that opens nothing.
    Invalid,
    OneTime,
    Api(Role, Scope),
    Enrollment(Scope),
    OwnPeer,
    OtherPeer,
}

fn expected(access: Access, who: &Who) -> Option<u16> {
    use Access::{Enroll, Global, Local, OneTime, Open, Peer};
    match (access, who) {
        (Open, _) | (OneTime, Who::OneTime) => None,
        (_, Who::Invalid | Who::OneTime) | (OneTime, _) => Some(401),
        (Local, _) => None,
        (_, Who::Nobody) => Some(401),
        (Global(_), Who::Api(_, Scope::A | Scope::B)) => Some(403),
        (Access::Role(need, _) | Global(need) | Enroll(need) | Peer(need), Who::Api(role, _))
            if *role < need =>
        {
            Some(403)
        }
        (Access::Role(_, true) | Enroll(_) | Peer(_), Who::Api(_, Scope::B)) => Some(404),
        (_, Who::Api(..)) => None,
        (Enroll(_), Who::Enrollment(Scope::A)) | (Peer(_), Who::OwnPeer) => None,
        (Enroll(_), Who::Enrollment(_)) | (Peer(_), Who::OtherPeer) => Some(404),
        (_, Who::Enrollment(_) | Who::OwnPeer | Who::OtherPeer) => Some(403),
    }
}

struct World<'a> {
    server: &'a Server,
    next: Cell<u32>,
}

impl World<'_> {
    fn name(&self, what: &str) -> String {
        self.next.set(self.next.get() + 1);
        format!("{what}-{}", self.next.get())
    }

    fn made(&self, path: &str, body: Value) -> Value {
        let (status, made) = self.server.admin("POST", path, Some(body));
        assert_eq!(status, 201, "{path}: {made}");
        made
    }

    /// A member of `a`: its id and the token that belongs to it.
    fn peer(&self) -> (String, String) {
        let body =
            json!({"agentName": self.name("p"), "workspaceId": "a", "publicKey": public_key(), "ttl": "1h"});
        let made = self.made("/api/v1/agent-enroll", body);
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        (text("peerId"), text("enrollmentToken"))
    }

    fn policy(&self) -> String {
        let name = self.name("policy");
        let rules = json!([{"direction": "egress", "action": "allow", "rule": "tcp:{role=tool}:8080"}]);
        self.made("/api/v1/policies", json!({"workspace": "a", "policy": {"name": name, "rules": rules}}));
        name
    }

    fn admin_token(&self, role: &str, workspace: Option<&str>) -> String {
        let body = json!({"name": "x", "role": role, "workspace": workspace});
        self.made("/api/v1/admin-tokens", body)["token"].as_str().unwrap().to_owned()
    }

    fn body(&self, method: &str, path: &str) -> Option<Value> {
        Some(match (method, path) {
            ("POST", "/api/v1/login") => json!({"name": "x"}),
            ("POST", "/api/v1/admin-tokens") => json!({"name": "x", "role": "viewer", "workspace": "a"}),
            ("POST", "/api/v1/workspaces") => json!({"name": self.name("w")}),
            ("POST", "/api/v1/tokens") => json!({"workspace": "a"}),
            ("POST", "/api/v1/agent-enroll") => json!({"agentName": self.name("p"), "workspaceId": "a"}),
            ("PUT", "/api/v1/peers/{id}/labels") => json!({"labels": {"role": "tool"}}),
            ("POST", "/api/v1/policies") => {
                json!({"workspace": "a", "policy": {"name": self.name("policy"), "rules": []}})
            }
            ("POST", "/api/v1/policies/explain") => json!({
                "workspace": "a", "peer": "fixed", "direction": "egress", "protocol": "tcp", "address": "10.42.0.9", "port": 1,
            }),
            _ => return None,
        })
    }
}

/// One request on a connection of its own, so that no limit on one address plays a part.
fn ask(server: &Server, from: u8, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> u16 {
    let mut stream = connect_from(server, [127, 0, 2, from]);
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{bearer}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn over(data: &std::path::Path, id: &str) {
    let url = format!("sqlite://{}", data.join("lattice.db").display());
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    let update = "UPDATE admin_tokens SET expires_at = 1 WHERE id = $1";
    let updated = sqlx::query(update).bind(id).execute(&mut database).await.unwrap();
    assert_eq!(updated.rows_affected(), 1);
}

fn one_time(data: &std::path::Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_latticed"))
        .args(["admin-token", "--data-dir"])
        .arg(data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = String::from_utf8(output.stdout).unwrap();
    std::fs::read_to_string(path.trim()).unwrap()
}

fn id_of(token: &str) -> String {
    token.parse::<AdminToken>().unwrap().id().to_owned()
}

#[tokio::test]
async fn every_route_admits_whom_it_should_and_nobody_else() {
    let (dir, server) = start();
    let world = World { server: &server, next: Cell::new(0) };
    for name in ["a", "b"] {
        world.made("/api/v1/workspaces", json!({"name": name}));
    }
    world.made(
        "/api/v1/agent-enroll",
        json!({"agentName": "fixed", "workspaceId": "a", "publicKey": public_key()}),
    );
    let enrollment = |workspace: &str| {
        let made = world.made("/api/v1/tokens", json!({"workspace": workspace, "uses": 1000}));
        made["token"].as_str().unwrap().to_owned()
    };
    let (revoked, expired) = (world.admin_token("admin", None), world.admin_token("admin", None));
    let path = format!("/api/v1/admin-tokens/{}", id_of(&revoked));
    assert_eq!(server.admin("DELETE", &path, None).0, 204);
    over(dir.path(), &id_of(&expired)).await;
    // Right in form and known by its id, with another secret.
    let known: AdminToken = server.api_token().parse().unwrap();
    let forged = AdminToken::from_random(random(), random()).expose();
    let wrong = with_id(&forged, known.id());

    let mut callers: Vec<(String, Option<String>, Who)> = vec![
        ("nobody".into(), None, Who::Nobody),
        ("malformed".into(), Some("la-x".into()), Who::Invalid),
        ("wrong secret".into(), Some(wrong), Who::Invalid),
        ("unknown".into(), Some(forged), Who::Invalid),
        ("unknown enrollment".into(), Some(Token::from_random(random(), random()).expose()), Who::Invalid),
        ("revoked".into(), Some(revoked), Who::Invalid),
        ("expired".into(), Some(expired), Who::Invalid),
        ("one-time".into(), Some(one_time(dir.path())), Who::OneTime),
        ("enrollment of a".into(), Some(enrollment("a")), Who::Enrollment(Scope::A)),
        ("enrollment of b".into(), Some(enrollment("b")), Who::Enrollment(Scope::B)),
        ("own peer".into(), None, Who::OwnPeer),
        ("other peer".into(), Some(world.peer().1), Who::OtherPeer),
    ];
    for (role, word) in [(Viewer, "viewer"), (Operator, "operator"), (Admin, "admin")] {
        for (scope, workspace) in [(Scope::All, None), (Scope::A, Some("a")), (Scope::B, Some("b"))] {
            let token = world.admin_token(word, workspace);
            callers.push((format!("{word} {scope:?}"), Some(token), Who::Api(role, scope)));
        }
    }

    let document = server.request("GET", "/api/v1/openapi.json", None, None).1;
    let described: usize =
        document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len()).sum();
    // One is there with and without a filter.
    assert_eq!(described, ROUTES.len() - 1, "a route is missing here");
    for (n, (caller, token, who)) in (1u8..).zip(&callers) {
        for (method, route, access) in ROUTES {
            let template = route.split('?').next().unwrap();
            let operation = &document["paths"][template][method.to_lowercase()];
            let done = operation["responses"].as_object().unwrap().keys().find(|k| *k != "default").unwrap();
            let (mut path, mut token) = (route.to_owned(), token.clone());
            if route.contains("/peers/{id}") {
                let (id, own) = world.peer();
                path = route.replace("{id}", &id);
                if matches!(who, Who::OwnPeer) {
                    token = Some(own);
                }
            } else if matches!(who, Who::OwnPeer) {
                token = Some(world.peer().1);
            }
            if route.contains("/policies/{name}") {
                path = format!("{}?workspace=a", route.replace("{name}", &world.policy()));
            } else if route == "/api/v1/tokens/{id}" {
                let made = world.made("/api/v1/tokens", json!({"workspace": "a"}));
                path = route.replace("{id}", made["id"].as_str().unwrap());
            } else if route == "/api/v1/admin-tokens/{id}" {
                path = route.replace("{id}", &id_of(&world.admin_token("viewer", Some("a"))));
            }
            let got = ask(&server, n, method, &path, token.as_deref(), world.body(method, route));
            let wanted = expected(access, who).unwrap_or_else(|| done.parse().unwrap());
            assert_eq!(got, wanted, "{method} {route} as {caller}");
        }
    }
}

/// `token` with another id and the checksum that fits, as an attacker would write it.
fn with_id(token: &str, id: &str) -> String {
    let secret = token.split('-').nth(2).unwrap();
    let body = format!("la-{id}-{secret}");
    let mut crc = !0u32;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let crc = data_encoding::BASE32_NOPAD.encode(&(!crc).to_be_bytes()).to_ascii_lowercase();
    let token = format!("{body}-{crc}");
    assert_eq!(token.parse::<AdminToken>().unwrap().id(), id);
    token
}

#[test]
fn a_token_of_one_workspace_lists_nothing_of_another() {
    let (_dir, server) = start();
    let world = World { server: &server, next: Cell::new(0) };
    for name in ["a", "b"] {
        world.made("/api/v1/workspaces", json!({"name": name}));
    }
    world.peer();
    world.policy();
    server.token("a", 1);
    world.admin_token("viewer", Some("a"));
    let own = world.admin_token("admin", Some("b"));
    let (_, workspaces) = server.request("GET", "/api/v1/workspaces", Some(&own), None);
    assert_eq!(workspaces["items"].as_array().unwrap().len(), 1);
    let b = &workspaces["items"][0]["id"];
    assert_eq!(workspaces["items"][0]["name"], "b");
    for path in ["tokens", "peers", "policies", "events", "admin-tokens"] {
        let (status, list) = server.request("GET", &format!("/api/v1/{path}"), Some(&own), None);
        assert_eq!(status, 200);
        assert!(
            list["items"].as_array().unwrap().iter().all(|item| item["workspace"] == *b),
            "{path}: {list}"
        );
        let everything = server.admin("GET", &format!("/api/v1/{path}"), None).1;
        assert!(everything["items"].as_array().unwrap().iter().any(|item| item["workspace"] != *b), "{path}");
    }
}

#[test]
fn nobody_makes_a_token_that_is_wider_than_the_own() {
    let (_dir, server) = start();
    let world = World { server: &server, next: Cell::new(0) };
    for name in ["a", "b"] {
        world.made("/api/v1/workspaces", json!({"name": name}));
    }
    let own = world.admin_token("admin", Some("a"));
    let make =
        |token: &str, body: Value| server.request("POST", "/api/v1/admin-tokens", Some(token), Some(body));
    assert_eq!(make(&own, json!({"name": "x", "role": "admin", "workspace": "b"})).0, 404);
    let (status, made) = make(&own, json!({"name": "x", "role": "admin"}));
    assert_eq!(status, 201);
    assert_eq!(made["workspace"], server.request("GET", "/api/v1/whoami", Some(&own), None).1["workspace"]);
    assert!(made["workspace"].is_string());
    let operator = world.admin_token("operator", None);
    assert_eq!(make(&operator, json!({"name": "x", "role": "viewer"})).0, 403);
    // Everybody may give up the own token.
    let viewer = world.admin_token("viewer", Some("a"));
    let path = format!("/api/v1/admin-tokens/{}", id_of(&viewer));
    assert_eq!(server.request("DELETE", &path, Some(&viewer), None).0, 204);
    assert_eq!(server.request("GET", "/api/v1/whoami", Some(&viewer), None).0, 401);
}
