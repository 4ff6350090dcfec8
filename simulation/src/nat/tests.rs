//! What each kind of NAT does, as a table.

use super::*;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn nat(mapping: Dependence, filtering: Dependence) -> Nat {
    let behaviour = Behaviour { mapping, filtering, preserves_ports: false, ..Behaviour::HOME };
    Nat::new(behaviour, OUTSIDE, Random::new(1))
}

use Dependence::{
    AddressAndPortDependent as Port, AddressDependent as Address, EndpointIndependent as Independent,
};

/// RFC 4787 section 4.1: is the mapping reused for the same remote, another port of it, another address?
#[test]
fn mappings_are_reused_as_their_kind_says() {
    let table =
        [(Independent, [true, true, true]), (Address, [true, true, false]), (Port, [true, false, false])];
    for (mapping, expected) in table {
        let (mut nat, now) = (nat(mapping, Port), Instant::now());
        let first = nat.outbound(at("10.0.0.2:51820"), at("203.0.113.1:1"), now).unwrap();
        assert_eq!(first.ip(), IpAddr::from(OUTSIDE));
        let remotes = ["203.0.113.1:1", "203.0.113.1:2", "203.0.113.2:1"];
        let reused =
            remotes.map(|remote| nat.outbound(at("10.0.0.2:51820"), at(remote), now).unwrap() == first);
        assert_eq!(reused, expected, "{mapping:?}");
        let other = nat.outbound(at("10.0.0.3:51820"), at("203.0.113.1:1"), now).unwrap();
        assert_ne!(other, first, "two inner hosts share a mapping of {mapping:?}");
    }
}

/// RFC 4787 section 5: after a datagram to one remote, who else may answer?
#[test]
fn filters_let_in_as_their_kind_says() {
    let table =
        [(Independent, [true, true, true]), (Address, [true, true, false]), (Port, [true, false, false])];
    for mapping in [Independent, Address, Port] {
        for (filtering, expected) in table {
            let (mut nat, now) = (nat(mapping, filtering), Instant::now());
            let inner = at("10.0.0.2:51820");
            let outer = nat.outbound(inner, at("203.0.113.1:1"), now).unwrap();
            let remotes = ["203.0.113.1:1", "203.0.113.1:2", "203.0.113.2:1"];
            let let_in = remotes.map(|remote| nat.inbound(outer, at(remote), now) == Some(inner));
            assert_eq!(let_in, expected, "{mapping:?} with {filtering:?}");
            let unmapped = SocketAddr::new(outer.ip(), outer.port() ^ 1);
            assert_eq!(nat.inbound(unmapped, at("203.0.113.1:1"), now), None);
        }
    }
}

#[test]
fn ports_are_preserved_only_while_free() {
    let mut nat = Nat::new(Behaviour::HOME, OUTSIDE, Random::new(1));
    let (now, remote) = (Instant::now(), at("203.0.113.1:1"));
    assert_eq!(nat.outbound(at("10.0.0.2:51820"), remote, now).unwrap().port(), 51820);
    assert_ne!(nat.outbound(at("10.0.0.3:51820"), remote, now).unwrap().port(), 51820);
    let mut nat = self::nat(Independent, Port);
    assert_ne!(nat.outbound(at("10.0.0.2:51820"), remote, now).unwrap().port(), 51820);
}

#[test]
fn mappings_end_with_silence_and_with_a_reboot() {
    let second = Duration::from_secs(1);
    let (inner, remote, start) = (at("10.0.0.2:51820"), at("203.0.113.1:1"), Instant::now());
    for inbound_refreshes in [true, false] {
        let behaviour = Behaviour { lifetime: 30 * second, inbound_refreshes, ..Behaviour::HOME };
        let mut nat = Nat::new(behaviour, OUTSIDE, Random::new(1));
        let outer = nat.outbound(inner, remote, start).unwrap();
        assert!(nat.inbound(outer, remote, start + 29 * second).is_some());
        assert_eq!(nat.inbound(outer, remote, start + 31 * second).is_some(), inbound_refreshes);
        assert!(nat.outbound(inner, remote, start + 50 * second).is_some());
        assert!(nat.inbound(outer, remote, start + 79 * second).is_some());
        nat.reboot();
        assert_eq!(nat.inbound(outer, remote, start + 79 * second), None);
    }
}

/// One remote's silence closes the filter for it, although the mapping lives on for another.
#[test]
fn each_remote_is_forgotten_by_itself() {
    let (mut nat, start) = (Nat::new(Behaviour::HOME, OUTSIDE, Random::new(1)), Instant::now());
    let (inner, one, two) = (at("10.0.0.2:51820"), at("203.0.113.1:1"), at("203.0.113.2:1"));
    let outer = nat.outbound(inner, one, start).unwrap();
    nat.outbound(inner, two, start + Duration::from_secs(100)).unwrap();
    let later = start + Duration::from_secs(130);
    assert_eq!((nat.inbound(outer, one, later), nat.inbound(outer, two, later)), (None, Some(inner)));
}

#[test]
fn a_firewall_translates_nothing_and_lets_in_only_answers() {
    let mut firewall = Nat::firewall(Port, Duration::from_secs(60), Random::new(1));
    let (inner, remote, now) = (at("[2001:db8::2]:51820"), at("[2001:db8:1::1]:1"), Instant::now());
    assert_eq!(firewall.inbound(inner, remote, now), None);
    assert_eq!(firewall.outbound(inner, remote, now), Some(inner));
    assert_eq!(firewall.inbound(inner, remote, now), Some(inner));
    assert_eq!(firewall.inbound(inner, at("[2001:db8:1::1]:2"), now), None);
}
