//! Our checks with another implementation of ICE at the other end.

use std::time::Duration;

use is::{
    Candidate as Theirs, IceAgent, IceAgentEvent, IceCreds, Protocol, stun::StunMessage, stun::StunPacket,
};
use lattice_wire::signal::{Candidate, CandidateKind, Signal};
use lattice_wireguard::Path;

use super::network::{Nat, Network, at, key, ms};
use crate::{Event, PathPeer};

/// Runs both until both have a path. Peer 1 controls where its key is the smaller one.
fn meet(our_number: usize, their_number: usize) {
    let mut network = Network::new(1);
    network.hosts.clear();
    for _ in 0..our_number {
        network.add(Nat::None, 1);
    }
    let mut host = network.hosts.pop().unwrap();
    let (ours, theirs) = (host.addresses[0], at("198.18.0.1:9000"));
    let (key, mut now) = (key(their_number), network.now);
    let paths = &mut host.paths;
    paths.set_stun_servers(&[], now);
    paths.set_peers(&[PathPeer { key, endpoints: vec![] }], now);
    paths.wants(&key, now);
    let said = paths.poll_signal().unwrap().1;

    let creds = IceCreds { ufrag: "theirufrag".into(), pass: "theirpasswordtheirpassword".into() };
    let mut agent = IceAgent::new(creds.clone());
    agent.set_controlling(their_number < our_number);
    agent.add_local_candidate(Theirs::host(theirs, "udp").unwrap());
    agent.set_remote_credentials(IceCreds { ufrag: said.ufrag.clone(), pass: said.password.clone() });
    for candidate in &said.candidates {
        agent.add_remote_candidate(Theirs::host(candidate.address, "udp").unwrap());
    }
    let answer = Signal {
        epoch: 5,
        seq: 1,
        answers: Some(said.epoch),
        ufrag: creds.ufrag,
        password: creds.pass,
        candidates: vec![Candidate { kind: CandidateKind::Host, address: theirs }],
        relays: vec![],
    };
    paths.handle_signal(&key, answer, now);
    let (mut here, mut there) = (None, None);
    for _ in 0..200 {
        agent.handle_timeout(now);
        paths.handle_timeout(now);
        while let Some(sent) = agent.poll_transmit() {
            assert!(paths.handle_stun(ours, theirs, &sent.contents, now), "theirs was not taken");
        }
        while let Some(sent) = paths.poll_transmit() {
            let message = StunMessage::parse(&sent.payload).unwrap();
            let packet = StunPacket { proto: Protocol::Udp, source: ours, destination: sent.remote, message };
            assert!(agent.handle_packet(now, packet), "ours was not taken");
        }
        while let Some(event) = paths.poll_event() {
            if let Event::Select { path, .. } = event {
                here = path;
            }
        }
        while let Some(event) = agent.poll_event() {
            if let IceAgentEvent::NominatedSend { destination, .. } = event {
                there = Some(destination);
            }
        }
        now += ms(10);
        paths.wants(&key, now);
    }
    assert_eq!(here, Some(Path::Direct { remote: theirs, local: Some(ours.ip()) }));
    assert_eq!(there, Some(ours));
    assert!(paths.status(&key).unwrap().rtt.unwrap() < Duration::from_millis(50));
}

#[test]
fn it_follows_us_and_we_follow_it() {
    meet(1, 2);
    meet(2, 1);
}
