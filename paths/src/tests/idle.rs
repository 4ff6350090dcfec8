//! What peers cost that nobody talks to.

use lattice_wire::WgPublicKey;

use super::network::{Nat, Network, at, ms};
use crate::{PathPeer, peer::Peer};

#[test]
fn ten_thousand_idle_peers_cost_memory_alone_and_little_of_it() {
    let mut network = Network::new(1);
    network.add(Nat::None, 1);
    let peers: Vec<_> = (0..10_000_u32)
        .map(|number| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_le_bytes());
            PathPeer { key: WgPublicKey(key), endpoints: vec![at("192.0.2.9:51820")] }
        })
        .collect();
    let now = network.now;
    let paths = &mut network.hosts[0].paths;
    paths.set_peers(&peers, now);
    paths.set_relay(1, "east", None, now);
    paths.set_local(&[at("192.0.2.1:51820"), at("[2001:db8::1]:51820")], now);
    assert_eq!(paths.poll_timeout(), None);
    paths.handle_timeout(now + ms(3_600_000));
    assert!(paths.poll_transmit().is_none() && paths.poll_signal().is_none() && paths.poll_event().is_none());
    // Its endpoint is 32 bytes more, and its place in the table by key 36.
    assert!(size_of::<Option<Peer>>() <= 256, "{} bytes", size_of::<Option<Peer>>());
    // One that is wanted wakes alone.
    paths.wants(&peers[77].key, now);
    let signals: Vec<_> = std::iter::from_fn(|| paths.poll_signal()).map(|(peer, _)| peer).collect();
    assert_eq!(signals, [peers[77].key]);
    assert!(paths.poll_timeout().is_some());
}

#[test]
fn a_session_ends_three_minutes_after_the_last_packet() {
    let mut network = Network::pair(2, Nat::PortRestricted, Nat::PortRestricted);
    network.run(ms(5000));
    assert!(network.both_direct());
    network.talk.clear();
    let before = network.hosts[0].probed.len();
    network.run(ms(170_000));
    assert!(network.both_direct());
    let kept = network.hosts[0].probed[before..].iter().filter(|(_, to)| to.port() != 3478).count();
    assert!((8..25).contains(&kept), "{kept} checks in three minutes of silence");
    network.run(ms(60_000));
    assert_eq!(
        network.hosts.iter().filter_map(|host| host.paths.poll_timeout()).count(),
        0,
        "somebody is still awake"
    );
    assert_eq!(network.hosts.iter().map(|host| host.ended).collect::<Vec<_>>(), [1, 1]);
    let why = network.status(0, 1);
    assert!(why.why_not_direct.is_none() || why.why_not_direct.unwrap().contains("idle"));
    // The first packet after that goes by the relay, not to where the peer was long ago.
    network.talk = vec![(0, 1)];
    network.run(ms(10));
    assert!(network.is_relayed(0, 1));
    network.run(ms(3000));
    assert!(network.both_direct());
}
