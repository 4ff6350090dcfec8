//! What a hostile peer, a hostile newcomer and a stranger cannot do on NATS.

use std::sync::Arc;

use async_nats::ConnectErrorKind;
use futures::StreamExt as _;
use lattice_wire::{
    PeerId,
    message::{RefusalCode, Reply},
    subject::{self, PeerVerb},
};
use nix::sys::signal::Signal;
use nkeys::KeyPair;
use tokio::time::timeout;

use crate::{
    peer::{Link, PATIENCE, Peer, ask_to_enroll, bootstrap, connect, pushed, request},
    server::{Server, start},
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

/// What nobody may touch who is not `victim`.
fn of_others(server: &Server, victim: &PeerId) -> Vec<String> {
    let mut subjects: Vec<String> = [
        ">",
        "*",
        "*.>",
        "lattice.>",
        "lattice.config.*",
        "lattice.config.>",
        "lattice.peer.>",
        "lattice.signal.>",
        "lattice.signal.*.*",
        "lattice.audit.>",
        "lattice.audit",
        "_INBOX.>",
        "_INBOX.x",
        "_INBOX_*.>",
        "$SYS.>",
        "$SYS.REQ.>",
        "$SYS.REQ.USER.INFO",
        "$SYS.REQ.SERVER.PING",
        "$JS.API.>",
        "$JS.API.INFO",
        "$SRV.PING",
    ]
    .map(str::to_owned)
    .into();
    let account = server.account();
    subjects.extend([
        subject::config(victim),
        format!("lattice.signal.{victim}.*"),
        format!("{}.>", subject::inbox(victim)),
        format!("{}.x", subject::inbox(victim)),
        subject::any_peer(PeerVerb::Heartbeat),
        format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.UPDATE"),
        format!("$SYS.ACCOUNT.{account}.CLAIMS.UPDATE"),
        format!("lattice.audit.{victim}"),
    ]);
    subjects.extend(PeerVerb::ALL.map(|verb| subject::peer(victim, verb)));
    subjects
}

#[tokio::test]
async fn a_peer_hears_and_says_nothing_beyond_its_own_subjects() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let victim = Peer::enroll(&server, "victim", &token).await;
    // Of the same workspace, and of another one.
    for token in [token, server.token("another", 1)] {
        let mut hostile = Peer::enroll(&server, "hostile", &token).await;
        let mut forbidden = of_others(&server, victim.id());
        forbidden.push(subject::ENROLL.into());
        // A signal that the victim sent to itself, or to the hostile one: neither to be read out of turn nor forged.
        forbidden.push(subject::signal(victim.id(), victim.id()));
        is_confined(&mut hostile.link, &forbidden).await;
        let own = hostile.id().clone();
        let silent = [
            subject::config(&own),
            subject::signal(&own, victim.id()),
            format!("{}.x", subject::inbox(&own)),
        ];
        for subject in silent {
            hostile.link.client.publish(subject.clone(), "x".into()).await.unwrap();
            assert!(hostile.link.violation().await.contains("publish"), "{subject}: may be heard, not said");
        }
        for subject in [subject::signal(victim.id(), &own), subject::peer(&own, PeerVerb::Netmap)] {
            hostile.link.client.subscribe(subject.clone()).await.unwrap();
            assert!(
                hostile.link.violation().await.contains("subscription"),
                "{subject}: may be said, not heard"
            );
        }
    }
    assert!(victim.netmap().await.unwrap().peers[0].online, "the victim is undisturbed");
}

#[tokio::test]
async fn a_signal_reaches_its_receiver_and_its_sender_is_proven() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let (a, b) = (Peer::enroll(&server, "a", &token).await, Peer::enroll(&server, "b", &token).await);
    let mut signals = b.link.client.subscribe(format!("lattice.signal.{}.*", b.id())).await.unwrap();
    b.netmap().await.unwrap();
    a.link.client.publish(subject::signal(b.id(), a.id()), "hello".into()).await.unwrap();
    let signal = timeout(PATIENCE, signals.next()).await.unwrap().unwrap();
    assert_eq!(signal.subject.as_str(), subject::signal(b.id(), a.id()));
    assert_eq!(&*signal.payload, b"hello");
}

#[tokio::test]
async fn a_peer_holds_a_bounded_number_of_subscriptions() {
    let (_dir, server) = start();
    let mut peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    let mut held = Vec::new();
    for n in 0..20 {
        held.push(peer.link.client.subscribe(format!("{}.{n}", subject::inbox(peer.id()))).await.unwrap());
    }
    let violation = peer.link.violation().await;
    assert!(violation.contains("maximum subscriptions"), "{violation}");
}

#[tokio::test]
async fn a_bootstrap_user_can_only_enrol() {
    let (_dir, server) = start();
    let victim = Peer::enroll(&server, "victim", &server.token("w", 1)).await;
    let mut link = bootstrap(&server.signaling()).await;
    let mut forbidden = of_others(&server, victim.id());
    forbidden.push("_INBOX_enroll-*.>".into());
    forbidden.push(format!("{}.x", subject::bootstrap_inbox("another")));
    forbidden.push(subject::signal(victim.id(), victim.id()));
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
    // The server says why as well, but what is on the way when it closes may be lost.
    peer.link.lost().await;
}

#[tokio::test]
async fn strangers_do_not_get_in() {
    let (_dir, server) = start();
    let at = server.signaling();
    let tls = at.nats_tls.as_ref().unwrap().client_config().unwrap();
    let anonymous = async_nats::ConnectOptions::new().require_tls(true).tls_client_config(tls);
    assert!(refuses(anonymous.connect(&at.nats_url).await.err()), "anonymous");

    // A real peer's JWT with another key, and a JWT that is signed by nobody we know.
    let peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    let thief = Arc::new(KeyPair::new_user());
    let inbox = subject::inbox(peer.id());
    assert!(refuses(connect(&at, &peer.grant.nats_jwt, &thief, &inbox).await.err()), "stolen");
    let (_other_dir, other) = start();
    let foreign = Peer::enroll(&other, "a", &other.token("w", 1)).await;
    assert!(
        refuses(connect(&at, &foreign.grant.nats_jwt, &foreign.key, &inbox).await.err()),
        "another operator's"
    );
    assert!(connect(&at, &peer.grant.nats_jwt, &peer.key, &inbox).await.is_ok());
}

/// Whether the server refused who connects; anything else that fails would prove nothing.
pub fn refuses(error: Option<async_nats::ConnectError>) -> bool {
    error.is_some_and(|error| error.kind() == ConnectErrorKind::AuthorizationViolation)
}
