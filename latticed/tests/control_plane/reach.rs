//! What peers are told of STUN servers and relays, and how long they may show themselves to these.

use std::{process::Command, sync::Arc};

use lattice_wire::{
    PeerId, Reach, RelayClaims,
    message::RefusalCode,
    relay_token::{InvalidRelayToken, RelayKeys, TrustedKeys, verify},
    subject::{self, PeerVerb},
};
use nkeys::KeyPair;
use serde_json::json;

use crate::{
    peer::{Link, Peer, ask_to_enroll, bootstrap, request},
    revocation::{claims, signed},
    server::{Server, start},
    start::fails,
};

const RELAY: &str = "lrp://relay.example:6267?tcp=6266&name=eu1#sha256=\
                     00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

async fn ask(link: &Link, id: &PeerId) -> Result<Reach, RefusalCode> {
    link.ask(&subject::peer(id, PeerVerb::Reach), b"").await
}

/// Whom a relay of this server trusts.
fn trusted(server: &Server) -> TrustedKeys {
    let (status, body) = server.request("GET", "/api/v1/relay-key", None, None);
    assert_eq!(status, 200, "{body}");
    let RelayKeys { keys } = serde_json::from_value(body).unwrap();
    TrustedKeys::new(keys.iter().map(String::as_str)).unwrap()
}

#[tokio::test]
async fn a_peer_is_told_where_relays_are_and_a_token_says_to_them_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--stun", "a.example:3478,192.0.2.1:3478", "--relay", RELAY]);
    let link = bootstrap(&server.signaling()).await;
    let (wanted, key) = request("a", &server.token("w", 1));
    let grant = ask_to_enroll(&link, &wanted).await.unwrap();
    let peer = Peer::resume(&server, grant, key).await;

    let reach = ask(&peer.link, peer.id()).await.unwrap();
    assert_eq!(reach.stun, ["a.example:3478", "192.0.2.1:3478"]);
    assert_eq!(reach.relays, [RELAY.parse().unwrap()]);
    let (token, end) = (reach.relay_token.unwrap(), reach.token_not_after.unwrap());
    let now = jiff::Timestamp::now().as_second();
    assert!((now + 3500..=now + 3600).contains(&end), "an hour: {end} at {now}");
    let claims = RelayClaims {
        workspace: peer.grant.workspace.clone(),
        wireguard: wanted.wireguard_public_key,
        nats: wanted.nats_public_key,
        not_after: end,
    };
    assert_eq!(verify(&token, &trusted(&server), now), Ok(claims));
    assert!(server.text("/metrics").contains(r#"lattice_relay_tokens_total{result="granted"} 1"#));

    let shown = Command::new(env!("CARGO_BIN_EXE_latticed"))
        .arg("--data-dir")
        .arg(dir.path())
        .arg("relay-key")
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(verify(&token, &TrustedKeys::new([shown.trim()]).unwrap(), now).is_ok(), "{shown}");
}

#[tokio::test]
async fn the_token_of_a_removed_peer_ends_by_itself_and_there_is_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--relay", RELAY]);
    server.admin("POST", "/api/v1/workspaces", Some(json!({"name": "w"})));
    let body = json!({"workspace": "w", "peerTtl": "10m"});
    let made = server.admin("POST", "/api/v1/tokens", Some(body)).1;
    let mut peer = Peer::enroll(&server, "a", made["token"].as_str().unwrap()).await;

    let reach = ask(&peer.link, peer.id()).await.unwrap();
    let end = reach.token_not_after.unwrap();
    assert_eq!(Some(end), peer.grant.not_after, "it ends with the membership");
    let (token, trusted) = (reach.relay_token.unwrap(), trusted(&server));
    assert_eq!(server.admin("DELETE", &format!("/api/v1/peers/{}", peer.id()), None).0, 204);
    assert!(verify(&token, &trusted, end - 1).is_ok());
    assert_eq!(verify(&token, &trusted, end), Err(InvalidRelayToken::Expired));

    peer.link.lost().await;
    // NATS refuses its key. latticed does not rely on that: here is its JWT for another one.
    let key = Arc::new(KeyPair::new_user());
    let mut other = claims(&peer.grant.nats_jwt);
    other["sub"] = json!(key.public_key());
    peer.grant.nats_jwt = signed(dir.path(), &peer.grant.nats_jwt, &other.to_string());
    let again = Peer::resume(&server, peer.grant.clone(), key).await;
    assert!(ask(&again.link, again.id()).await == Err(RefusalCode::PeerUnknown));
    assert!(server.text("/metrics").contains(r#"lattice_relay_tokens_total{result="refused"} 1"#));
}

#[tokio::test]
async fn without_relays_there_is_no_token() {
    let (_dir, server) = start();
    let peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    assert!(ask(&peer.link, peer.id()).await.unwrap() == Reach::default());
    assert!(!server.text("/metrics").contains("relay_tokens_total{"));
}

#[test]
fn what_is_wrong_with_a_server_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (option, value, what) in [
        ("--stun", "a.example", "HOST:PORT"),
        ("--stun", "a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8,a:9", "--stun names 9 servers"),
        ("--relay", "https://a:1", "lrp://HOST"),
        ("--relay", "lrp://a:1", "#sha256="),
        ("--relay", &format!("{RELAY},{RELAY}"), "two relays \"eu1\""),
    ] {
        let (code, message) = fails(dir.path(), &[option, value]);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(what), "{message}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
    let output = command.arg("--data-dir").arg(dir.path()).arg("relay-key").output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8(output.stderr).unwrap().contains("relay.nk"), "nobody made one yet");
}
