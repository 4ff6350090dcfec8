//! What hostile datagrams and signals must not do. For the fuzzer alone.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::{WgPublicKey, signal::Signal};

use crate::{
    Config, Event, PathPeer, Paths, address,
    mux::{self, Kind},
    stun::{self, Message},
};

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 51820);
const THERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 51820);
const PEER: WgPublicKey = WgPublicKey([2; 32]);

/// A datagram from anybody. Says whether it is anything at all.
pub fn classify(bytes: &[u8]) -> bool {
    let kind = mux::classify(bytes);
    // The state machine takes no message that the socket's owner would give to another.
    if Message::parse(bytes).is_some() {
        assert_eq!(kind, Kind::Stun);
    }
    kind != Kind::Garbage
}

/// A datagram in the name of a peer and of a STUN server: as it is, and with the transaction and the user name that are looked for,
/// which a fuzzer does not guess. Says whether it is a message that we read.
pub fn stun(bytes: &[u8]) -> bool {
    let (mut paths, ours, now) = called();
    while paths.poll_transmit().is_some() {}
    let server = SocketAddr::new(HERE.ip(), 3478);
    for from in [THERE, server] {
        assert!(!paths.handle_stun(HERE, from, bytes, now), "a message without a password was accepted");
    }
    assert!(paths.poll_transmit().is_none(), "a stranger was answered");
    let Some(message) = Message::parse(bytes) else { return false };
    // The same claims from somebody who knows the password: harmless, and the answer no bigger than the question.
    let check = stun::Check {
        transaction: message.transaction,
        username: &format!("{}:{}", ours.ufrag, message.receiver.unwrap_or("them")),
        priority: message.priority.unwrap_or(0),
        controlling: message.controlling.unwrap_or(false),
        tie_breaker: 0,
        nominate: message.use_candidate,
    };
    let question = stun::check(&check, &stun::key(&ours.password));
    let from = message.mapped.unwrap_or(THERE);
    let accepted = paths.handle_stun(HERE, from, &question, now);
    assert!(!accepted || address::may_be_probed(address::canonical(from), &[]), "{from} was answered");
    assert!(!accepted || message.controlling == Some(false) || message.controlling.is_none());
    let mut bytes_out = 0;
    while let Some(sent) = paths.poll_transmit() {
        assert_eq!(sent.local, HERE);
        bytes_out += sent.payload.len();
    }
    assert!(bytes_out <= question.len(), "an amplifier");
    true
}

/// What a peer sealed, as JSON. Says whether it is a signal.
pub fn signal(bytes: &[u8]) -> bool {
    let Ok(signal) = serde_json::from_slice::<Signal>(bytes) else { return false };
    let (mut paths, ours, start) = called();
    let right = Signal { answers: Some(ours.epoch), ..signal.clone() };
    paths.handle_signal(&PEER, signal, start);
    let mut now = start;
    let mut sent = settle(&mut paths);
    assert_eq!(sent, 0, "candidates count that answer another epoch");
    paths.handle_signal(&PEER, right.clone(), now);
    paths.handle_signal(&PEER, right, now);
    for _ in 0..100 {
        paths.wants(&PEER, now);
        sent += settle(&mut paths);
        let Some(next) = paths.poll_timeout() else { break };
        now = now.max(next);
        paths.handle_timeout(now);
    }
    let seconds = now.saturating_duration_since(start).as_secs() as usize + 1;
    assert!(
        sent <= crate::limits::PEER_PROBES_BURST as usize + crate::limits::PEER_PROBES as usize * seconds
    );
    true
}

/// Takes all outputs. Returns how many checks there were.
fn settle(paths: &mut Paths) -> usize {
    let mut sent = 0;
    while let Some(transmit) = paths.poll_transmit() {
        assert_eq!(transmit.local, HERE);
        assert!(
            address::may_be_probed(transmit.remote, &[]) && transmit.remote != HERE,
            "{} is probed",
            transmit.remote
        );
        sent += 1;
    }
    while paths.poll_signal().is_some() {}
    while let Some(event) = paths.poll_event() {
        let Event::Select { path, .. } = event else { continue };
        assert!(path.is_none_or(|path| path.remote().is_none()), "an address that never answered is used");
    }
    sent
}

/// With a session with one peer, which was called and has not answered; and what it was told.
fn called() -> (Paths, Signal, Instant) {
    let now = Instant::now() + Duration::from_secs(3600);
    let mut number = 0_u8;
    let random = move |bytes: &mut [u8]| {
        bytes.iter_mut().for_each(|byte| {
            number = number.wrapping_mul(5).wrapping_add(113);
            *byte = number;
        });
    };
    let mut paths = Paths::new(Config { key: WgPublicKey([1; 32]), pool: vec![] }, random);
    paths.set_local(&[HERE], now);
    paths.set_peers(&[PathPeer { key: PEER, endpoints: vec![] }], now);
    paths.wants(&PEER, now);
    let (_, said) = paths.poll_signal().expect("the peer is called");
    (paths, said, now)
}
