//! Datagrams across zones.

use super::*;
use crate::{Behaviour, Dependence};

const PORT: u16 = 51820;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A network, and a home behind a NAT at `outside` in `outer`.
fn home(network: &mut Network, outer: ZoneId, outside: &str, behaviour: Behaviour) -> (ZoneId, RouterId) {
    let inner = network.add_zone();
    let nat = Nat::new(behaviour, outside.parse().unwrap(), Random::new(7));
    let router = Router { inner, outer, inside: vec![], nat: Some(nat), firewall: None, link: Link::GOOD };
    (inner, network.add_router(router))
}

/// Sends one datagram; who got it, and from where.
fn send(network: &mut Network, from: HostId, to: &str, now: Instant) -> Option<(HostId, SocketAddr)> {
    let to = to.parse().unwrap();
    network.send(from, (None, PORT), to, b"datagram", now);
    let got = network.poll(now + Duration::from_secs(1)).map(|got| {
        assert_eq!((got.payload.as_slice(), got.sender, got.addressed), (b"datagram".as_slice(), from, to));
        (got.host, got.remote)
    });
    assert!(network.next_at().is_none());
    got
}

#[test]
fn two_homes_with_the_same_private_addresses_stay_apart() {
    let (mut network, now) = (Network::new(Random::new(1)), Instant::now());
    let server = network.add_host(vec![(0, ip("203.0.113.1"))]);
    let (one, _) = home(&mut network, 0, "198.51.100.1", Behaviour::HOME);
    let (two, _) = home(&mut network, 0, "198.51.100.2", Behaviour::HOME);
    let a = network.add_host(vec![(one, ip("192.168.1.2"))]);
    let b = network.add_host(vec![(one, ip("192.168.1.3"))]);
    let c = network.add_host(vec![(two, ip("192.168.1.2"))]);
    assert_eq!(
        send(&mut network, b, "192.168.1.2:51820", now),
        Some((a, "192.168.1.3:51820".parse().unwrap()))
    );
    assert_eq!(send(&mut network, c, "192.168.1.3:51820", now), None);
    let (to, seen) = send(&mut network, a, "203.0.113.1:51820", now).unwrap();
    assert_eq!((to, seen), (server, "198.51.100.1:51820".parse().unwrap()));
    assert_eq!(send(&mut network, server, "198.51.100.1:51820", now).unwrap().0, a);
    assert_eq!(send(&mut network, server, "198.51.100.2:51820", now), None);
    assert_eq!(send(&mut network, server, "192.168.1.2:51820", now), None);
}

#[test]
fn a_hairpin_is_there_only_where_the_nat_makes_one() {
    for hairpins in [false, true] {
        let (mut network, now) = (Network::new(Random::new(1)), Instant::now());
        let behaviour = Behaviour { hairpins, filtering: Dependence::EndpointIndependent, ..Behaviour::HOME };
        let (carrier, _) = home(&mut network, 0, "198.51.100.1", behaviour);
        let (one, _) = home(&mut network, carrier, "100.64.0.1", Behaviour::HOME);
        let (two, _) = home(&mut network, carrier, "100.64.0.2", behaviour);
        network.add_host(vec![(0, ip("203.0.113.1"))]);
        let a = network.add_host(vec![(one, ip("192.168.1.2"))]);
        let b = network.add_host(vec![(two, ip("192.168.1.2"))]);
        let (_, outside) = send(&mut network, b, "203.0.113.1:1", now).unwrap();
        assert_eq!(outside.ip(), ip("198.51.100.1"), "two NATs in a row");
        let got = send(&mut network, a, &outside.to_string(), now);
        assert_eq!(got.is_some_and(|(host, from)| host == b && from.ip() == outside.ip()), hairpins);
    }
}

#[test]
fn ipv6_is_routed_and_guarded_but_not_translated() {
    let (mut network, now) = (Network::new(Random::new(1)), Instant::now());
    let server = network.add_host(vec![(0, ip("2001:db8:ffff::1")), (0, ip("203.0.113.1"))]);
    let inner = network.add_zone();
    let lifetime = Duration::from_secs(60);
    let firewall = Nat::firewall(Dependence::AddressAndPortDependent, lifetime, Random::new(2));
    network.add_router(Router {
        inner,
        outer: 0,
        inside: vec!["2001:db8:1::/64".parse().unwrap()],
        nat: None,
        firewall: Some(firewall),
        link: Link::GOOD,
    });
    let a = network.add_host(vec![(inner, ip("2001:db8:1::2"))]);
    assert_eq!(send(&mut network, server, "[2001:db8:1::2]:51820", now), None);
    let (to, seen) = send(&mut network, a, "[2001:db8:ffff::1]:51820", now).unwrap();
    assert_eq!((to, seen), (server, "[2001:db8:1::2]:51820".parse().unwrap()));
    assert_eq!(send(&mut network, server, "[2001:db8:1::2]:51820", now).unwrap().0, a);
    assert_eq!(send(&mut network, a, "203.0.113.1:51820", now), None, "a host without IPv4 sent IPv4");
    let nobody = "[2001:db8:1::3]:51820";
    assert_eq!(send(&mut network, a, nobody, now), None, "what nobody has went round and round");
    assert_eq!(send(&mut network, server, nobody, now), None);
}

#[test]
fn cuts_moves_and_links_that_are_down_lose_what_is_sent() {
    let (mut network, now) = (Network::new(Random::new(1)), Instant::now());
    let server = network.add_host(vec![(0, ip("203.0.113.1"))]);
    let (zone, router) = home(&mut network, 0, "198.51.100.1", Behaviour::HOME);
    let a = network.add_host(vec![(zone, ip("192.168.1.2"))]);
    let reaches = |network: &mut Network| send(network, a, "203.0.113.1:51820", now).is_some();
    assert!(reaches(&mut network));
    network.cut(server, a, true);
    assert!(!reaches(&mut network));
    network.cut(a, server, false);
    assert!(reaches(&mut network));
    network.router(router).link.up = false;
    assert!(!reaches(&mut network));
    network.router(router).link.up = true;
    network.move_host(a, vec![]);
    assert!(!reaches(&mut network));
    network.move_host(a, vec![(0, ip("203.0.113.9"))]);
    assert_eq!(send(&mut network, a, "203.0.113.1:51820", now).unwrap().1.ip(), ip("203.0.113.9"));
}
