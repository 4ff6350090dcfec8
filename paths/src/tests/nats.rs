//! Who reaches whom directly, through which NATs.

use lattice_wireguard::Path;

use super::network::{Nat, Network, at, ms};

#[test]
fn hosts_of_one_lan_use_their_own_addresses() {
    let mut network = Network::new(1);
    network.add(Nat::PortRestricted, 1);
    network.add(Nat::PortRestricted, 1);
    network.meet();
    network.talk = vec![(0, 1)];
    network.run(ms(2000));
    let direct = |remote, local| Some(Path::Direct { remote: at(remote), local: Some(at(local).ip()) });
    assert_eq!(network.path(0, 1), direct("10.1.0.2:51820", "10.1.0.1:1"));
    assert_eq!(network.path(1, 0), direct("10.1.0.1:51820", "10.1.0.2:1"));
}

#[test]
fn holes_are_punched_through_all_but_two_hard_nats() {
    use Nat::*;
    for (a, b) in [
        (None, None),
        (None, Symmetric),
        (FullCone, FullCone),
        (FullCone, Symmetric),
        (PortRestricted, FullCone),
        (PortRestricted, PortRestricted),
    ] {
        for (a, b) in [(a, b), (b, a)] {
            let mut network = Network::pair(7, a, b);
            network.run(ms(1500));
            assert!(network.both_direct(), "{a:?} and {b:?}: {:?}", network.status(0, 1));
            let status = network.status(0, 1);
            assert_eq!((status.rtt, status.why_not_direct), (Some(ms(40)), Option::None));
            network.run(ms(60_000));
            assert!(network.both_direct(), "{a:?} and {b:?} do not stay direct");
        }
    }
}

#[test]
fn a_relay_serves_those_that_cannot_and_says_why() {
    use Nat::*;
    for (a, b, reason) in [
        (Symmetric, Symmetric, "(symmetric)"),
        (Symmetric, PortRestricted, "(symmetric)"),
        (Blocked, FullCone, "UDP may be blocked here"),
        (Blocked, Blocked, "UDP may be blocked here"),
    ] {
        let mut network = Network::pair(9, a, b);
        network.run(ms(20_000));
        assert!(network.is_relayed(0, 1) && network.is_relayed(1, 0), "{a:?} and {b:?}");
        let why = network.status(0, 1).why_not_direct.unwrap();
        assert!(why.contains(reason) && why.contains("none of the peer's"), "{a:?} and {b:?}: {why}");
        // A minute, five, fifteen: not much is spent on what does not work.
        let (probed, signals) = (network.hosts[0].probed.len(), network.hosts[0].signals);
        network.run(ms(3_600_000));
        let probed = network.hosts[0].probed.len() - probed;
        let signals = network.hosts[0].signals - signals;
        // 4 servers every 25 s at worst, and seven searches of each side.
        assert!(
            probed < 1500 && signals < 200,
            "{a:?} and {b:?}: {probed} probes, {signals} signals in an hour"
        );
        assert!(network.is_relayed(0, 1) && network.is_relayed(1, 0));
    }
}

#[test]
fn the_relay_is_there_at_once_and_the_change_to_direct_loses_nothing() {
    let mut network = Network::pair(3, Nat::PortRestricted, Nat::PortRestricted);
    network.run(ms(10));
    assert!(network.is_relayed(0, 1) && network.is_relayed(1, 0), "no path for the first packet");
    network.run(ms(10_000));
    assert!(network.both_direct());
    network.talk.clear();
    network.run(ms(1000));
    for (from, to) in [(0, 1), (1, 0)] {
        let (sent, received) = (network.hosts[from].sent, network.hosts[to].received.len());
        assert_eq!(received, sent as usize);
        assert!(sent > 190);
    }
}

#[test]
fn ipv6_alone_is_enough() {
    let mut network = Network::pair(4, Nat::PortRestricted, Nat::PortRestricted);
    network.set_local(0, &[at("[2001:db8:1::1]:51820")]);
    network.set_local(1, &[at("[2001:db8:2::1]:51820"), at("10.2.0.2:51820")]);
    network.run(ms(1500));
    let remote = |from, to| network.path(from, to).and_then(|path| path.remote());
    assert_eq!(remote(0, 1), Some(at("[2001:db8:2::1]:51820")));
    assert_eq!(remote(1, 0), Some(at("[2001:db8:1::1]:51820")));
}
