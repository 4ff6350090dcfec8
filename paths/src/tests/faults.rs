//! What breaks, and how soon it is whole again.

use std::net::SocketAddr;

use lattice_wireguard::Path;
use proptest::prelude::*;

use super::network::{Nat, Network, at, ms};
use crate::PathPeer;

#[test]
fn a_direct_path_that_dies_is_left_for_the_relay_within_a_second() {
    for seed in 0..20 {
        let mut network = Network::pair(seed, Nat::PortRestricted, Nat::None);
        network.run(ms(5000 + 13 * seed));
        assert!(network.both_direct());
        network.cut = true;
        let cut = network.now;
        network.run(ms(5000));
        for (from, to) in [(0, 1), (1, 0)] {
            assert!(network.is_relayed(from, to));
            let (when, ..) = network.hosts[from].selected.last().unwrap();
            assert!(*when - cut <= ms(1000), "after {:?}", *when - cut);
        }
        network.cut = false;
        network.run(ms(40_000));
        assert!(network.both_direct(), "{:?}", network.status(0, 1));
    }
}

#[test]
fn a_host_that_roams_is_found_again() {
    // Also while the control plane is away, or after a moment, when it is back.
    for signal_loss in [0, 100] {
        let mut network = Network::pair(5, Nat::PortRestricted, Nat::None);
        network.run(ms(5000));
        assert!(network.both_direct());
        network.signal_loss = signal_loss;
        let moved = network.now;
        network.set_local(0, &[at("10.1.0.77:51820")]);
        assert!(network.is_relayed(0, 1), "the old address is still in use");
        network.run(ms(2000));
        assert!(network.both_direct(), "{signal_loss} % loss of signals: {:?}", network.status(1, 0));
        let local =
            |host: usize, to: usize| network.path(host, to).and_then(|path| path.remote()).map(|at| at.ip());
        assert_eq!(local(0, 1), Some(at("192.0.2.2:1").ip()));
        assert!(network.hosts[1].selected.last().unwrap().0 > moved);
        network.run(ms(120_000));
        assert!(network.both_direct(), "it does not last");
    }
}

#[test]
fn a_link_that_was_not_in_use_may_go() {
    let mut network = Network::pair(5, Nat::PortRestricted, Nat::None);
    network.set_local(0, &[at("10.1.0.1:51820"), at("10.1.9.1:51820")]);
    network.run(ms(5000));
    let (path, switches) = (network.path(0, 1), network.hosts[0].selected.len());
    assert!(network.both_direct());
    let local = match path {
        Some(Path::Direct { local: Some(local), .. }) => local,
        path => panic!("{path:?}"),
    };
    network.set_local(0, &[SocketAddr::new(local, 51820)]);
    network.run(ms(5000));
    assert_eq!((network.path(0, 1), network.hosts[0].selected.len()), (path, switches), "it was given up");
    network.cut = true;
    network.run(ms(3000));
    assert!(network.is_relayed(0, 1));
}

#[test]
fn signals_may_be_lost_repeated_and_reordered() {
    for seed in 0..30 {
        let mut network = Network::pair(seed, Nat::PortRestricted, Nat::PortRestricted);
        (network.signal_loss, network.signal_chaos) = (40, true);
        network.run(ms(90_000));
        assert!(network.both_direct(), "seed {seed}: {:?}", network.status(0, 1));
    }
}

#[test]
fn without_signals_wireguard_searches_by_itself() {
    let mut network = Network::pair(6, Nat::PortRestricted, Nat::None);
    network.signal_loss = 100;
    let server = PathPeer { key: network.hosts[1].key, endpoints: vec![at("192.0.2.2:51820")] };
    let now = network.now;
    network.hosts[0].paths.set_peers(&[server], now);
    network.run(ms(60_000));
    assert_eq!(network.path(0, 1), None, "the map's endpoints are not used");
    let why = network.status(0, 1).why_not_direct.unwrap();
    assert!(why.contains("no signal"), "{why}");
    // The other knows no address: all it can try is the relay.
    assert!(network.is_relayed(1, 0));
}

#[test]
fn a_peer_that_began_anew_is_found_again() {
    let mut network = Network::pair(8, Nat::PortRestricted, Nat::PortRestricted);
    network.run(ms(5000));
    assert!(network.both_direct());
    // The process of host 1 ends, and another one starts that knows nothing.
    let peers: Vec<_> = [0].map(|i| PathPeer { key: network.hosts[i].key, endpoints: vec![] }).into();
    let now = network.now;
    network.hosts[1].paths.set_peers(&[], now);
    network.hosts[1].selected.clear();
    network.run(ms(1000));
    assert!(network.is_relayed(0, 1));
    let now = network.now;
    network.hosts[1].paths.set_peers(&peers, now);
    network.run(ms(3000));
    assert!(network.both_direct(), "{:?}", network.status(0, 1));
}

const NATS: [Nat; 4] = [Nat::None, Nat::FullCone, Nat::PortRestricted, Nat::Symmetric];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn whatever_is_lost_there_is_always_a_path_and_the_best_one_in_the_end(
        seed: u64,
        a in 0..4_usize,
        b in 0..4_usize,
        loss in 0..25_u64,
        signal_loss in 0..50_u64,
        chaos: bool,
        cuts in prop::collection::vec((100..20_000_u64, 100..5000_u64), 0..4),
    ) {
        let mut network = Network::pair(seed, NATS[a], NATS[b]);
        (network.loss, network.signal_loss, network.signal_chaos) = (loss, signal_loss, chaos);
        network.pause = ms(500);
        for (before, long) in cuts {
            network.run(ms(before));
            network.cut = true;
            network.run(ms(long));
            network.cut = false;
        }
        network.run(ms(60_000));
        // With loss a path may be taken for dead for a moment: the relay then carries.
        prop_assert!(network.path(0, 1).is_some() && network.path(1, 0).is_some());
        (network.loss, network.signal_loss, network.signal_chaos) = (0, 0, false);
        // The longest wait after so few searches in vain.
        network.run(ms(330_000));
        let possible = a.min(b) < 2 || a.max(b) < 3;
        prop_assert_eq!(network.both_direct(), possible, "{:?}", network.status(0, 1));
        prop_assert_eq!(network.is_relayed(0, 1) && network.is_relayed(1, 0), !possible);
    }
}
