//! The program against a model of the table's meaning, on random tables and frames.

use std::net::IpAddr;

use lattice_policy::{Match, Pin};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use super::*;

/// Few bits vary, so that prefixes nest and frames hit them.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..4u8, 0..4u8).prop_map(|(a, b)| IpAddr::from([198, 18, a, b])),
        (0..4u16, 0..4u16).prop_map(|(a, b)| IpAddr::from([0x2001, 0xdb8, a, 0, 0, 0, 0, b])),
    ]
}

fn proto() -> impl Strategy<Value = Proto> {
    prop_oneof![Just(Proto::Any), Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Icmp)]
}

fn matches() -> impl Strategy<Value = Vec<Match>> {
    let ports = proptest::option::of((0..8u16, 0..8u16).prop_map(|(a, b)| (a.min(b), a.max(b))));
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    vec((proto(), ports, action, 1..99u32).prop_map(|(p, ports, a, rule)| line(p, ports, a, rule)), 0..9)
}

fn entries() -> impl Strategy<Value = Vec<lattice_policy::Entry>> {
    let bits = prop_oneof![Just(0), Just(16), Just(23), Just(24), Just(31), Just(32), Just(48), Just(128)];
    vec((address(), bits, matches()), 0..12).prop_map(|list| {
        let mut entries: Vec<lattice_policy::Entry> = Vec::new();
        for (ip, bits, matches) in list {
            let bits: u8 = if ip.is_ipv4() { std::cmp::min(bits, 32) } else { bits };
            let net = ipnet::IpNet::new(ip, bits).unwrap().trunc();
            if entries.iter().all(|e| e.net != net) {
                entries.push(lattice_policy::Entry { net, matches });
            }
        }
        entries
    })
}

fn pins() -> impl Strategy<Value = Vec<Pin>> {
    let until_ns = prop_oneof![Just(1), Just(u64::MAX), Just(u64::MAX)];
    vec((address(), matches(), until_ns), 0..8).prop_map(|list| {
        let pin = |(address, mut matches, until_ns): (_, Vec<_>, _)| {
            matches.truncate(Pin::MAX_LINES);
            Pin { address, matches, until_ns }
        };
        list.into_iter().map(pin).collect()
    })
}

/// `pins` are empty for ingress. Of several for one address the last counts, if it is not over.
fn expected(
    entries: &[lattice_policy::Entry],
    pins: &[Pin],
    remote: IpAddr,
    proto: Proto,
    port: u16,
) -> Reason {
    let longest = entries.iter().filter(|e| e.net.contains(&remote)).max_by_key(|e| e.net.prefix_len());
    let fits = |m: &&Match| {
        (m.proto == Proto::Any || m.proto == proto)
            && m.ports.is_none_or(|p| proto != Proto::Icmp && (p.lo..=p.hi).contains(&port))
    };
    let pinned = || pins.iter().rfind(|pin| pin.address == remote).filter(|pin| pin.until_ns == u64::MAX);
    let by_table = longest.and_then(|e| e.matches.iter().find(fits));
    match by_table.or_else(|| pinned()?.matches.iter().find(fits)).map(|m| m.action) {
        Some(Action::Allow) => Reason::RuleAllow,
        Some(Action::Deny) => Reason::RuleDeny,
        None => Reason::DefaultDeny,
    }
}

/// `from` is the caller's port, `to` the called one's.
fn opening(direction: Direction, remote: IpAddr, proto: Proto, from: u16, to: u16) -> Vec<u8> {
    let (number, payload) = match (proto, remote) {
        (Proto::Udp, _) => (17, udp(from, to)),
        (Proto::Icmp, IpAddr::V4(_)) => (1, icmp(8, 0, from, b"")),
        (Proto::Icmp, IpAddr::V6(_)) => (58, icmp(128, 0, from, b"")),
        _ => (6, tcp(from, to, SYN, b"")),
    };
    match (remote, direction) {
        (IpAddr::V4(ip), Direction::Egress) => ip4(number, OWN4, ip.octets(), &payload),
        (IpAddr::V4(ip), Direction::Ingress) => ip4(number, ip.octets(), OWN4, &payload),
        (IpAddr::V6(ip), Direction::Egress) => ip6(number, v6(OWN6), ip.octets(), &payload),
        (IpAddr::V6(ip), Direction::Ingress) => ip6(number, ip.octets(), v6(OWN6), &payload),
    }
}

#[test]
fn the_program_decides_as_the_table_says() {
    let mut fixture = Fixture::new();
    let mut caller = 1000;
    let openings = vec((any::<bool>(), address(), proto(), 0..9u16), 40);
    let strategy = (entries(), entries(), pins(), pins(), openings);
    let mut runner = TestRunner::new(ProptestConfig { cases: 48, ..ProptestConfig::default() });
    let fixture = std::cell::RefCell::new((&mut fixture, &mut caller));
    let agree = |(egress, ingress, at_first, later, openings): (_, _, Vec<_>, Vec<_>, Vec<_>)| {
        let (fixture, caller) = &mut *fixture.borrow_mut();
        let table = Table { egress, ingress };
        fixture.apply_with(&table, &at_first, 1);
        fixture.harness.enforcer.pin(&later).unwrap();
        // One that is over when its policy comes is left out, so it does not hide one of before.
        let pins: Vec<Pin> =
            at_first.into_iter().filter(|pin| pin.until_ns == u64::MAX).chain(later).collect();
        for (out, remote, proto, port) in openings {
            // A new flow each time, for the one of before may be allowed.
            **caller = if **caller == u16::MAX { 1000 } else { **caller + 1 };
            let (direction, entries, pins) = match out {
                true => (Direction::Egress, &table.egress, &pins[..]),
                false => (Direction::Ingress, &table.ingress, &[][..]),
            };
            let frame = opening(direction, remote, proto, **caller, port);
            let proto = if proto == Proto::Any { Proto::Tcp } else { proto };
            let said = fixture.reason(direction, &frame);
            prop_assert_eq!(
                said,
                expected(entries, pins, remote, proto, port),
                "{:?} {} {:?} {}",
                direction,
                remote,
                proto,
                port
            );
        }
        Ok(())
    };
    runner.run(&strategy, agree).unwrap();
}

#[test]
fn no_damaged_frame_passes_an_empty_policy() {
    let mut fixture = Fixture::with(&Table::default());
    let peer = v6("2001:db8::1");
    let seeds = [
        ip4(6, OWN4, TOOL, &tcp(1, 2, SYN, b"payload")),
        ip4(17, OWN4, TOOL, &udp(1, 2)),
        ip4(1, OWN4, TOOL, &icmp(3, 4, 0, &[0x45; 40])),
        fragment4(ip4(17, OWN4, TOOL, &udp(1, 2)), true, 0),
        ip6(6, v6(OWN6), peer, &tcp(1, 2, SYN, b"payload")),
        ip6(
            0,
            v6(OWN6),
            peer,
            &[
                &[60, 0, 0, 0, 0, 0, 0, 0][..],
                &[44, 0, 0, 0, 0, 0, 0, 0],
                &fragment6(17, true, 0, &udp(1, 2)),
            ]
            .concat(),
        ),
        ip6(58, v6(OWN6), peer, &icmp(1, 0, 0, &[0x60; 60])),
    ];
    let damage = vec((12..100usize, any::<u8>()), 0..6);
    let mut runner = TestRunner::new(ProptestConfig { cases: 4000, ..ProptestConfig::default() });
    let fixture = std::cell::RefCell::new(&mut fixture);
    runner
        .run(&(0..seeds.len(), damage, 54..120usize, any::<bool>()), |(seed, damage, length, out)| {
            let mut frame = seeds[seed].clone();
            frame.truncate(length.min(frame.len()));
            for (at, value) in damage {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            let fixture = &mut **fixture.borrow_mut();
            // Counts exactly one reason, and passes only with one that allows; of those only this is possible here.
            let reason = fixture.reason(if out { Direction::Egress } else { Direction::Ingress }, &frame);
            prop_assert!(
                !matches!(reason, Reason::RuleAllow | Reason::Established),
                "{:?} {:x?}",
                reason,
                frame
            );
            Ok(())
        })
        .unwrap();
}
