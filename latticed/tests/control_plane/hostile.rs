//! What a hostile peer, a hostile newcomer and a stranger cannot do on NATS.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};
use lattice_wire::{
    message::{RefusalCode, Reply},
    subject::{self, PeerVerb},
};
use nix::sys::signal::Signal;
use nkeys::KeyPair;

use crate::{
    peer::{Link, Peer, ask_to_enroll, bootstrap, connect, pushed, request},
    server::start,
};

/// Tries to listen and to speak where it may not, and checks that the server says so each time.
async fn is_confined(link: &mut Link, others: &[String]) {
    for subject in others {
        let _subscription = link.client.subscribe(subject.clone()).await.unwrap();
        let violation = link.violation().await;
        assert!(violation.contains("subscription"), "{subject}: {violation}");
        assert!(violation.contains(&format!("\"{}\"", subject.to_lowercase())), "{subject}: {violation}");
    }
    for subject in others.iter().filter(|subject| !subject.contains(['*', '>'])) {
        link.client.publish(subject.clone(), "x".into()).await.unwrap();
        let violation = link.violation().await;
        assert!(violation.contains("publish"), "{subject}: {violation}");
    }
}

#[tokio::test]
async fn a_peer_hears_and_says_nothing_beyond_its_own_subjects() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let victim = Peer::enroll(&server, "victim", &token).await;
    let mut hostile = Peer::enroll(&server, "hostile", &token).await;
    let forbidden = [
        ">".into(),
        "*".into(),
        "lattice.>".into(),
        "lattice.config.*".into(),
        subject::ENROLL.into(),
        subject::config(victim.id()),
        format!("{}.>", subject::inbox(victim.id())),
        format!("{}.x", subject::inbox(victim.id())),
        subject::peer(victim.id(), PeerVerb::Leave),
        subject::any_peer(PeerVerb::Heartbeat),
        "$SYS.>".into(),
        "$SYS.REQ.USER.INFO.x".into(),
        "_INBOX.x".into(),
    ];
    is_confined(&mut hostile.link, &forbidden).await;
    // Its own maps come from latticed alone.
    hostile.link.client.publish(subject::config(hostile.id()), "x".into()).await.unwrap();
    assert!(hostile.link.violation().await.contains("publish"));
    assert!(victim.netmap().await.unwrap().peers[0].online, "the victim is undisturbed");
}

#[tokio::test]
async fn a_bootstrap_user_can_only_enrol() {
    let (_dir, server) = start();
    let victim = Peer::enroll(&server, "victim", &server.token("w", 1)).await;
    let mut link = bootstrap(&server.signaling()).await;
    let forbidden = [
        ">".into(),
        "lattice.>".into(),
        "_INBOX_enroll-*.>".into(),
        subject::config(victim.id()),
        subject::peer(victim.id(), PeerVerb::Netmap),
        format!("{}.x", subject::inbox(victim.id())),
        format!("{}.x", subject::bootstrap_inbox("another")),
    ];
    is_confined(&mut link, &forbidden).await;
}

/// A reply subject is chosen by the requester and checked by nobody but latticed.
#[tokio::test]
async fn latticed_answers_only_into_the_requesters_inbox() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let victim = Peer::enroll(&server, "victim", &token).await;
    let hostile = Peer::enroll(&server, "hostile", &token).await;
    let mut pushes = victim.pushes().await;
    let newcomer = bootstrap(&server.signaling()).await;

    for reply in [subject::config(victim.id()), format!("{}.x", subject::inbox(victim.id()))] {
        for verb in PeerVerb::ALL {
            let request = subject::peer(hostile.id(), verb);
            hostile.link.client.publish_with_reply(request, reply.clone(), "".into()).await.unwrap();
        }
        newcomer.client.publish_with_reply(subject::ENROLL, reply, "{}".into()).await.unwrap();
    }
    // Its own requests are answered after the forged ones were read, and a push follows.
    newcomer.ask::<Reply<()>>(subject::ENROLL, b"{}").await.unwrap_err();
    hostile.netmap().await.unwrap();
    hostile.heartbeat(&["198.51.100.7:51820"]).await.unwrap();
    let map = pushed(&mut pushes, "the heartbeat", |map| !map.peers[0].endpoints.is_empty()).await;
    assert!(map.peers[0].online, "the forged leave was not obeyed either");
}

#[tokio::test]
async fn who_floods_enrolment_is_stopped_and_cannot_take_other_names() {
    let (_dir, server) = start();
    let token = server.token("w", 1);
    let flood = bootstrap(&server.signaling()).await;
    let mut codes = Vec::new();
    for _ in 0..30 {
        codes.push(flood.ask::<Reply<()>>(subject::ENROLL, b"{}").await.unwrap_err());
    }
    assert_eq!(codes.iter().filter(|code| **code == RefusalCode::Malformed).count(), 8);
    assert!(codes[8..].iter().all(|code| *code == RefusalCode::RateLimited), "{codes:?}");

    // Another is not affected, and a name that was not given out is no inbox, or each request could have one of its own.
    let another = bootstrap(&server.signaling()).await;
    let (request, _) = request("a", &token);
    let payload = serde_json::to_vec(&request).unwrap();
    let made_up = format!("{}.x", subject::bootstrap_inbox(&"a".repeat(32)));
    another.client.publish_with_reply(subject::ENROLL, made_up, payload.into()).await.unwrap();
    assert_eq!(another.ask::<Reply<()>>(subject::ENROLL, b"{}").await, Err(RefusalCode::Malformed));
    assert!(server.peers().is_empty(), "the request with the made up inbox was not even read");
    ask_to_enroll(&another, &request).await.unwrap();
}

#[tokio::test]
async fn what_strangers_write_stays_in_its_line_of_the_log() {
    let (_dir, server) = start();
    let link = bootstrap(&server.signaling()).await;
    let forged = r#"{"kind":"x\nforged entry\u001b[31m"}"#;
    assert_eq!(link.ask::<Reply<()>>(subject::ENROLL, forged.as_bytes()).await, Err(RefusalCode::Malformed));
    let (_, log) = server.end(Signal::SIGTERM);
    let line = log.lines().find(|line| line.contains("forged entry")).unwrap();
    assert!(line.contains("enrolment refused") && !line.contains('\u{1b}'), "{line:?}");
}

#[tokio::test]
async fn a_removed_peer_can_connect_and_is_told_nothing() {
    let (_dir, server) = start();
    let token = server.token("w", 3);
    let stays = Peer::enroll(&server, "stays", &token).await;
    let removed = Peer::enroll(&server, "removed", &token).await;
    let (_, _) = (removed.netmap().await.unwrap(), stays.netmap().await.unwrap());
    assert_eq!(server.admin("DELETE", &format!("/api/v1/peers/{}", removed.id()), None).0, 204);

    let mut removed = Peer::resume(&server, removed.grant.clone(), removed.key.clone()).await;
    let mut pushes = removed.link.client.subscribe(subject::config(removed.id())).await.unwrap();
    assert_eq!(removed.heartbeat(&["198.51.100.9:1"]).await, Err(RefusalCode::PeerUnknown));
    let mut told = stays.pushes().await;
    let newcomer = Peer::enroll(&server, "newcomer", &token).await;
    let map = pushed(&mut told, "the newcomer", |map| map.peers.iter().any(|p| p.id == *newcomer.id())).await;
    assert_eq!(map.peers.len(), 1, "it is in no map either");
    // Its own request is answered after every push that was under way.
    assert_eq!(removed.netmap().await, Err(RefusalCode::PeerUnknown));
    assert!(pushes.next().now_or_never().is_none());
    is_confined(&mut removed.link, &[subject::config(stays.id()), subject::ENROLL.into()]).await;
}

#[tokio::test]
async fn a_peer_that_asks_without_end_is_slowed_down_alone() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let (calm, greedy) =
        (Peer::enroll(&server, "calm", &token).await, Peer::enroll(&server, "greedy", &token).await);
    let answers = futures::future::join_all((0..200).map(|_| greedy.netmap())).await;
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(refused > 0, "none of 200 was refused");
    assert!(calm.netmap().await.is_ok());
}

#[tokio::test]
async fn a_request_beyond_the_payload_limit_is_cut_off() {
    let (_dir, server) = start();
    let mut peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    let subject = subject::peer(peer.id(), PeerVerb::Heartbeat);
    peer.link.client.publish(subject, vec![b'x'; 64 << 10].into()).await.unwrap();
    assert!(peer.link.violation().await.contains("payload"));
}

#[tokio::test]
async fn strangers_do_not_get_in() {
    let (_dir, server) = start();
    let url = server.signaling().nats_url;
    assert!(async_nats::connect(&url).await.is_err(), "anonymous");

    // A real peer's JWT with another key, and a JWT that is signed by nobody we know.
    let peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    let thief = Arc::new(KeyPair::new_user());
    let inbox = subject::inbox(peer.id());
    assert!(connect(&url, &peer.grant.nats_jwt, &thief, &inbox).await.is_err());
    let (_other_dir, other) = start();
    let foreign = Peer::enroll(&other, "a", &other.token("w", 1)).await;
    assert!(connect(&url, &foreign.grant.nats_jwt, &foreign.key, &inbox).await.is_err());
    assert!(connect(&url, &peer.grant.nats_jwt, &peer.key, &inbox).await.is_ok());
}
