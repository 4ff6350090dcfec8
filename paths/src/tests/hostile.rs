//! What a peer, or who carries the signals, may try.

use std::collections::HashMap;

use lattice_wire::{
    WgPublicKey,
    signal::{Candidate, CandidateKind, MAX_CANDIDATES, Signal},
};

use super::network::{Nat, Network, RELAY, at, ms};
use crate::{PathPeer, limits, stun};

/// A host, and a peer of it that is ours to play.
fn victim() -> (Network, WgPublicKey) {
    let mut network = Network::new(1);
    network.add(Nat::None, 1);
    let key = WgPublicKey([9; 32]);
    let now = network.now;
    let paths = &mut network.hosts[0].paths;
    paths.set_peers(&[PathPeer { key, endpoints: vec![at("127.0.0.1:53"), at("10.200.0.7:1")] }], now);
    paths.set_relay(RELAY, "east", None, now);
    (network, key)
}

fn signal(answers: Option<u64>, seq: u64, candidates: &[&str]) -> Signal {
    let candidate = |text: &&str| Candidate { kind: CandidateKind::Host, address: at(text) };
    Signal {
        epoch: 99,
        seq,
        answers,
        ufrag: "hostilehostile".into(),
        password: "a-password".replace('-', "+").repeat(3),
        candidates: candidates.iter().map(candidate).collect(),
        relays: vec!["east".into()],
    }
}

/// Our epoch, as the victim says it.
fn epoch(network: &mut Network, key: &WgPublicKey) -> Signal {
    let now = network.now;
    network.hosts[0].paths.wants(key, now);
    network.hosts[0].paths.poll_signal().unwrap().1
}

/// Where the victim's checks go, besides STUN servers, in so many milliseconds.
fn probes(network: &mut Network, time: u64) -> Vec<std::net::SocketAddr> {
    network.run(ms(time));
    network.hosts[0].probed.drain(..).map(|(_, to)| to).filter(|to| to.port() != 3478).collect()
}

#[test]
fn lying_candidates_and_lying_maps_are_never_probed() {
    let (mut network, key) = victim();
    let ours = epoch(&mut network, &key).epoch;
    let lies = [
        "127.0.0.1:22",
        "169.254.169.254:80",
        "224.0.0.1:5353",
        "10.200.3.4:51820",
        "192.0.2.1:51820",
        "[::1]:22",
    ];
    let now = network.now;
    network.hosts[0].paths.handle_signal(&key, signal(Some(ours), 1, &lies), now);
    assert_eq!(probes(&mut network, 60_000), []);
    network.hosts[0].paths.handle_signal(&key, signal(Some(ours), 2, &["10.9.9.9:51820"]), network.now);
    assert!(probes(&mut network, 1000).contains(&at("10.9.9.9:51820")), "a private address is no lie");
    let many: Vec<String> = (1..=50).map(|port| format!("203.0.113.99:{port}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    network.hosts[0].paths.handle_signal(&key, signal(Some(ours), 3, &many), network.now);
    let mut tried = probes(&mut network, 10_000);
    tried.retain(|to| to.ip() == at("203.0.113.99:1").ip());
    tried.sort();
    tried.dedup();
    assert_eq!(tried.len(), MAX_CANDIDATES);
}

#[test]
fn what_answers_another_epoch_or_comes_twice_has_no_effect() {
    let (mut network, key) = victim();
    let ours = epoch(&mut network, &key).epoch;
    for answers in [None, Some(ours ^ 1)] {
        let now = network.now;
        network.hosts[0].paths.handle_signal(&key, signal(answers, 5, &["203.0.113.50:1"]), now);
        assert_eq!(probes(&mut network, 20_000), [], "answers {answers:?}");
    }
    let stranger = WgPublicKey([8; 32]);
    network.hosts[0].paths.handle_signal(&stranger, signal(Some(ours), 6, &["203.0.113.50:1"]), network.now);
    assert_eq!(probes(&mut network, 20_000), []);
    network.hosts[0].paths.handle_signal(&key, signal(Some(ours), 7, &[]), network.now);
    for seq in [7, 3] {
        network.hosts[0].paths.handle_signal(&key, signal(Some(ours), seq, &["203.0.113.50:1"]), network.now);
        assert_eq!(probes(&mut network, 20_000), [], "sequence number {seq} after 7");
    }
}

#[test]
fn a_peer_cannot_make_us_flood_anybody() {
    let (mut network, key) = victim();
    let mut ours = epoch(&mut network, &key).epoch;
    let victims: Vec<String> = (1..=200).map(|port| format!("203.0.113.99:{port}")).collect();
    let (mut count, seconds) = (HashMap::<_, u32>::new(), 120);
    // Ten times a second: another epoch, other addresses; and it answers whatever we say.
    for round in 0..10 * seconds {
        while let Some((_, said)) = network.hosts[0].paths.poll_signal() {
            ours = said.epoch;
        }
        let mut lie = signal(Some(ours), 1, &[]);
        lie.epoch = round;
        let from = round as usize % (victims.len() - 50);
        lie.candidates = victims[from..from + 50]
            .iter()
            .map(|at_| Candidate { kind: CandidateKind::Host, address: at(at_) })
            .collect();
        let now = network.now;
        network.hosts[0].paths.wants(&key, now);
        network.hosts[0].paths.handle_signal(&key, lie, now);
        while let Some((_, said)) = network.hosts[0].paths.poll_signal() {
            ours = said.epoch;
            network.hosts[0].signals += 1;
        }
        for to in probes(&mut network, 100) {
            *count.entry(to).or_default() += 1;
        }
    }
    let all: u32 = count.values().sum();
    let most = limits::PEER_PROBES_BURST + limits::PEER_PROBES * seconds as u32;
    assert!(all <= most, "{all} probes in {seconds} s");
    assert!(all > 100, "the test tests nothing: {all}");
    let signals = network.hosts[0].signals;
    assert!(signals < 20 + seconds as usize, "{signals} signals in {seconds} s");
}

#[test]
fn a_forged_or_replayed_datagram_moves_nothing() {
    let mut network = Network::pair(2, Nat::None, Nat::None);
    network.run(ms(3000));
    assert!(network.both_direct());
    let before = network.path(0, 1);
    let (here, elsewhere) = (at("192.0.2.1:51820"), at("203.0.113.66:6"));
    // Right in all but the password.
    let said = network.status(0, 1);
    let check = stun::Check {
        transaction: [1; 12],
        username: "aaaaaaaaaaaaaaaa:bbbb",
        priority: u32::MAX,
        controlling: false,
        tie_breaker: 0,
        nominate: true,
    };
    let forged = stun::check(&check, &stun::key("guess"));
    let mut answer = stun::answer([2; 12], here, Some(&stun::key("guess")));
    let now = network.now;
    let paths = &mut network.hosts[0].paths;
    assert!(!paths.handle_stun(here, elsewhere, &forged, now));
    assert!(!paths.handle_stun(here, elsewhere, &answer, now));
    answer.truncate(19);
    assert!(!paths.handle_stun(here, elsewhere, &answer, now));
    assert!(paths.poll_transmit().is_none(), "a stranger was answered");
    assert_eq!(network.status(0, 1).path, said.path);
    network.run(ms(3000));
    assert_eq!(network.path(0, 1), before);
}

#[test]
fn fresh_addresses_again_and_again_stay_within_the_rate() {
    let (mut network, key) = victim();
    let ours = epoch(&mut network, &key).epoch;
    let mut count = 0;
    for round in 0..8_u64 {
        let fresh: Vec<String> = (1..=16).map(|port| format!("203.0.113.{}:{port}", round + 50)).collect();
        let fresh: Vec<&str> = fresh.iter().map(String::as_str).collect();
        let lie = Signal { epoch: 200 + round, ..signal(Some(ours), 1, &fresh) };
        let now = network.now;
        network.hosts[0].paths.handle_signal(&key, lie, now);
        count += probes(&mut network, 500).len();
    }
    let most = (limits::PEER_PROBES_BURST + 4 * limits::PEER_PROBES) as usize;
    assert!((60..=most).contains(&count), "{count} probes in 4 s");
}

#[test]
fn only_the_password_and_the_right_way_prove_a_check() {
    let (mut network, key) = victim();
    let ours = epoch(&mut network, &key);
    let (here, there, elsewhere) = (at("192.0.2.1:51820"), at("203.0.113.50:1"), at("203.0.113.66:6"));
    let now = network.now;
    let paths = &mut network.hosts[0].paths;
    let said = signal(Some(ours.epoch), 1, &["203.0.113.50:1"]);
    let theirs = stun::key(&said.password);
    paths.handle_signal(&key, said, now);
    let sent = std::iter::from_fn(|| paths.poll_transmit()).find(|sent| sent.remote == there).unwrap();
    let transaction = stun::Message::parse(&sent.payload).unwrap().transaction;
    let answer = stun::answer(transaction, here, Some(&theirs));
    assert!(!paths.handle_stun(
        here,
        there,
        &stun::answer(transaction, here, Some(&stun::key("guess"))),
        now
    ));
    assert!(!paths.handle_stun(here, elsewhere, &answer, now), "the answer came another way");
    assert!(paths.status(&key).unwrap().path.is_none_or(|path| path.remote().is_none()));
    assert!(paths.handle_stun(here, there, &answer, now));
    assert_eq!(paths.status(&key).unwrap().path.and_then(|path| path.remote()), Some(there));
    let username = format!("{}:hostilehostile", ours.ufrag);
    let check = |controlling| stun::Check {
        transaction: [1; 12],
        username: &username,
        priority: 1,
        controlling,
        tie_breaker: 0,
        nominate: false,
    };
    let mut asks = |check: &stun::Check<'_>, password: &str| {
        paths.handle_stun(here, elsewhere, &stun::check(check, &stun::key(password)), now)
    };
    assert!(!asks(&check(false), "guess"));
    assert!(!asks(&check(true), &ours.password), "it claims our role");
    assert!(asks(&check(false), &ours.password));
}
