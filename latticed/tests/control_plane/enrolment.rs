//! Who is admitted, and who is not.

use futures::future::join_all;
use lattice_wire::{
    Token,
    message::{EnrollRequest, RefusalCode},
};

use crate::{
    peer::{Peer, ask_to_enroll, bootstrap, public_key, random, refused, request, sign},
    server::start,
};

#[tokio::test]
async fn a_spent_token_is_refused() {
    let (_dir, server) = start();
    let token = server.token("w", 1);
    Peer::enroll(&server, "a", &token).await;
    assert_eq!(refused(&server, "b", &token).await, RefusalCode::TokenUsed);
    assert_eq!(server.peers().len(), 1);
    let newest = server.admin("GET", "/api/v1/events?limit=1", None).1["items"][0].clone();
    assert_eq!(newest["kind"], "token.replayed");
    assert_eq!(newest["actor"], format!("lt-{}", token.parse::<Token>().unwrap().id()));
}

#[tokio::test]
async fn of_a_hundred_at_once_a_one_time_token_admits_one() {
    let (_dir, server) = start();
    let token = server.token("w", 1);
    // A bootstrap user may ask so many times only.
    let links = join_all((0..20).map(async |_| bootstrap(&server.signaling()).await)).await;
    let asked = (0..100).map(|n| {
        let (link, request) = (&links[n % links.len()], request(&format!("p{n}"), &token).0);
        async move { ask_to_enroll(link, &request).await }
    });
    let answers = join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let used = answers.iter().filter(|answer| answer.as_ref().err() == Some(&RefusalCode::TokenUsed));
    assert_eq!(used.count(), 99);
    assert_eq!(server.peers().len(), 1);
}

#[tokio::test]
async fn a_taken_name_costs_the_token_nothing() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    Peer::enroll(&server, "a", &token).await;
    assert_eq!(refused(&server, "a", &token).await, RefusalCode::NameTaken);
    Peer::enroll(&server, "b", &token).await;
}

#[tokio::test]
async fn a_revoked_or_foreign_token_is_refused() {
    let (_dir, server) = start();
    let token = server.token("w", 5);
    let id = token.parse::<Token>().unwrap().id().to_owned();
    for _ in 0..2 {
        assert_eq!(server.admin("DELETE", &format!("/api/v1/tokens/{id}"), None).0, 204);
    }
    assert_eq!(refused(&server, "a", &token).await, RefusalCode::TokenRevoked);

    let foreign = Token::from_random(random(), random()).expose();
    assert_eq!(refused(&server, "a", &foreign).await, RefusalCode::TokenUnknown);
    assert_eq!(refused(&server, "a", "no token").await, RefusalCode::TokenUnknown);
}

#[tokio::test]
async fn a_request_that_was_changed_or_cannot_be_read_is_refused() {
    let (_dir, server) = start();
    let token = server.token("w", 5);
    let link = bootstrap(&server.signaling()).await;

    let changed = EnrollRequest { wireguard_public_key: public_key(), ..request("a", &token).0 };
    assert_eq!(ask_to_enroll(&link, &changed).await.unwrap_err(), RefusalCode::ProofInvalid);
    for garbage in [&b""[..], b"{}", b"[", &[b'['; 10_000], br#"{"name":"../x"}"#] {
        let answer = link.ask::<lattice_wire::message::EnrollGrant>("lattice.enroll", garbage).await;
        assert_eq!(answer.unwrap_err(), RefusalCode::Malformed);
    }
    assert!(server.peers().is_empty());
}

#[tokio::test]
async fn a_public_key_of_another_peer_cannot_be_claimed() {
    let (_dir, server) = start();
    let token = server.token("w", 5);
    let link = bootstrap(&server.signaling()).await;
    let (victim, _) = request("victim", &token);
    ask_to_enroll(&link, &victim).await.unwrap();

    let (thief, key) = request("thief", &token);
    let thief = EnrollRequest { wireguard_public_key: victim.wireguard_public_key, ..thief };
    assert_eq!(ask_to_enroll(&link, &sign(thief, &key)).await.unwrap_err(), RefusalCode::KeyTaken);
    assert_eq!(server.peers().len(), 1);
}
