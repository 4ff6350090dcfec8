//! A model of the table's meaning, on random tables and packets.

use std::{cell::RefCell, net::IpAddr};

use lattice_policy::{Action, Direction, Entry, Match, Pin, Proto, Reason, Table};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use crate::{
    Judge,
    packet::opening,
    table::{line, pin},
};

/// Few bits vary, so that prefixes nest and packets hit them.
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

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let bits = prop_oneof![Just(0), Just(16), Just(23), Just(24), Just(31), Just(32), Just(48), Just(128)];
    vec((address(), bits, matches()), 0..12).prop_map(|list| {
        let mut entries: Vec<Entry> = Vec::new();
        for (ip, bits, matches) in list {
            let bits: u8 = if ip.is_ipv4() { std::cmp::min(bits, 32) } else { bits };
            let net = ipnet::IpNet::new(ip, bits).unwrap().trunc();
            if entries.iter().all(|e| e.net != net) {
                entries.push(Entry { net, matches });
            }
        }
        entries
    })
}

fn pins() -> impl Strategy<Value = Vec<Pin>> {
    let until_ns = prop_oneof![Just(1), Just(u64::MAX), Just(u64::MAX)];
    let of = |(address, mut matches, until_ns): (IpAddr, Vec<_>, _)| {
        matches.truncate(Pin::MAX_LINES);
        pin(address, &matches, until_ns)
    };
    vec((address(), matches(), until_ns).prop_map(of), 0..8)
}

/// `pins` are empty for ingress. Of several for one address the last counts, if it is not over.
fn expected(entries: &[Entry], pins: &[Pin], remote: IpAddr, proto: Proto, port: u16) -> Reason {
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

pub fn it_decides_as_the_table_says<J: Judge>() {
    let openings = vec((any::<bool>(), address(), proto(), 0..9u16), 40);
    let strategy = (entries(), entries(), pins(), pins(), openings);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(48));
    let judge = RefCell::new((J::new(), 1000));
    let agree =
        |(egress, ingress, mut pins, later, openings): (_, _, Vec<_>, Vec<_>, Vec<(_, IpAddr, _, _)>)| {
            let (judge, caller) = &mut *judge.borrow_mut();
            let table = Table { egress, ingress };
            judge.apply_with(&table, &pins, 1);
            judge.pin(&later);
            pins.extend(later);
            for (out, remote, proto, port) in openings {
                // A new flow each time, for the one of before may be allowed.
                *caller = if *caller == u16::MAX { 1000 } else { *caller + 1 };
                let (direction, entries, pins) = match out {
                    true => (Direction::Egress, &table.egress, &pins[..]),
                    false => (Direction::Ingress, &table.ingress, &[][..]),
                };
                let (proto, number) = match proto {
                    Proto::Udp => (proto, 17),
                    Proto::Icmp => (proto, if remote.is_ipv4() { 1 } else { 58 }),
                    Proto::Tcp | Proto::Any => (Proto::Tcp, 6),
                };
                let said = judge.judge(direction, &opening(direction, number, remote, *caller, port));
                let expected = expected(entries, pins, remote, proto, port);
                prop_assert_eq!(said, expected, "{:?} {} {:?} {}", direction, remote, proto, port);
            }
            Ok(())
        };
    runner.run(&strategy, agree).unwrap();
}
