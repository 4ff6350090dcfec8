//! Rules by name: what is pinned allows exactly what the rules say, and enforcers' tables agree with the rules.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::IpAddr;

use lattice_policy::{
    Action, Direction, Match, NamePattern, NameVerdict, Names, Packet, Pin, PinBook, Policy, PortRange,
    Proto, Rule, RuleId, Verdict, evaluate, evaluate_pinned, parse_rule,
};
use proptest::{prelude::*, sample::select};

const POOL: &str = "10.42.0.0/16";

/// Public ones first.
const ADDRESSES: [&str; 9] = [
    "93.184.216.1",
    "93.184.216.2",
    "93.184.217.1",
    "2606:4700::1",
    "10.42.0.5",
    "10.1.2.3",
    "169.254.169.254",
    "fd00::1",
    "::ffff:93.184.216.1",
];
const PUBLIC: usize = 4;

fn target() -> impl Strategy<Value = String> {
    let nets = ["0.0.0.0/0", "[::/0]", "93.184.216.0/24", "93.184.216.1", "10.0.0.0/8", "169.254.169.254"];
    let patterns =
        ["a.example.com", "b.example.com", "*.example.com", "*.a.example.com", "c.test", "*.c.test"];
    prop_oneof![1 => select(nets.to_vec()), 2 => select(patterns.to_vec())].prop_map(str::to_owned)
}

fn policy() -> impl Strategy<Value = Policy> {
    let action = select(vec![Action::Allow, Action::Allow, Action::Allow, Action::Deny]);
    let ports = select(vec!["", ":80", ":443", ":80,443", ":79-81,443", ":1-65535", ":22,80-90"]);
    let rule = (action, select(vec!["", "", "tcp:", "udp:", "icmp:"]), target(), ports);
    prop::collection::vec(rule, 0..12).prop_map(|rules| {
        rules.into_iter().fold(Policy::new(1), |policy, (action, proto, target, ports)| {
            let ports = if proto == "icmp:" { "" } else { ports };
            policy.egress(action, parse_rule(&format!("{proto}{target}{ports}")).unwrap())
        })
    })
}

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a.example.com", "b.example.com", "x.a.example.com", "C.test.", "d.c.test", "example.com"])
}

fn live() -> impl Strategy<Value = Vec<(&'static str, usize, u64)>> {
    prop::collection::vec((name(), 0..ADDRESSES.len(), 1u64..5), 0..10)
}

fn address(index: usize) -> IpAddr {
    ADDRESSES[index].parse().unwrap()
}

fn packet() -> impl Strategy<Value = Packet> {
    let port = select(vec![Some(22), Some(79), Some(80), Some(85), Some(443), Some(9), None]);
    let direction = select(vec![Direction::Egress, Direction::Egress, Direction::Egress, Direction::Ingress]);
    (direction, select(vec![1u8, 6, 6, 17, 58, 47]), 0..ADDRESSES.len(), port)
        .prop_map(|(direction, proto, at, port)| Packet { direction, proto, remote: address(at), port })
}

/// The rules by name that fit, straight from what they mean.
fn fitting<'a>(policy: &'a Policy, packet: &Packet, live: &[(&str, usize, u64)]) -> Vec<&'a Rule> {
    let means = |rule: &Rule, name: &str| rule.name.as_ref().is_some_and(|pattern| pattern.fits(name));
    let denied =
        |name: &str| policy.rules().iter().any(|rule| rule.action == Action::Deny && means(rule, name));
    let names: Vec<&str> = live
        .iter()
        .filter(|(name, at, _)| *at < PUBLIC && address(*at) == packet.remote.to_canonical() && !denied(name))
        .map(|(name, ..)| *name)
        .collect();
    let proto = match packet.proto {
        6 => Proto::Tcp,
        17 => Proto::Udp,
        _ => Proto::Icmp,
    };
    let fits = |rule: &&Rule| {
        let ports = rule.ports.is_empty()
            || packet.port.is_some_and(|port| {
                proto != Proto::Icmp && rule.ports.iter().any(|range| range.contains(port))
            });
        let name = names.iter().any(|name| means(rule, name));
        let net = rule.net.contains(&packet.remote.to_canonical());
        rule.action == Action::Allow
            && name
            && ports
            && net
            && (rule.proto == Proto::Any || rule.proto == proto)
    };
    policy.rules().iter().filter(fits).collect()
}

fn any_pin() -> impl Strategy<Value = Pin> {
    let range = (0u16..500, 0u16..500).prop_map(|(lo, hi)| PortRange { lo, hi });
    let line =
        (select(vec![Proto::Any, Proto::Tcp, Proto::Udp, Proto::Icmp]), prop::option::of(range), 1u32..9)
            .prop_map(|(proto, ports, rule)| Match {
                proto,
                ports,
                action: Action::Allow,
                rule: RuleId(rule),
            });
    (0..PUBLIC, prop::collection::vec(line, 0..=Pin::MAX_LINES)).prop_map(|(at, matches)| Pin {
        address: address(at),
        matches,
        until_ns: u64::MAX,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn pins_allow_what_the_rules_by_name_say(policy in policy(), live in live(), now in 0u64..3, packets in prop::collection::vec(packet(), 64)) {
        let (names, table, mut book) = (Names::new(&policy, &[POOL.parse().unwrap()]), policy.compile(), PinBook::default());
        let mut told: Vec<(IpAddr, Pin)> = Vec::new();
        let mut left_out = false;
        for (name, at, until) in &live {
            match book.learn(&names, name, address(*at), *until) {
                Ok(learned) => {
                    left_out |= !learned.left_out.is_empty();
                    for pin in learned.pins {
                        prop_assert!(pin.matches.len() <= Pin::MAX_LINES);
                        told.retain(|(address, _)| *address != pin.address);
                        told.push((pin.address, pin));
                    }
                    prop_assert!(matches!(names.query(name), NameVerdict::Allowed(_)));
                }
                Err(_) => prop_assert_eq!(names.pin(name, address(*at), *until).is_err(), true),
            }
        }
        for pin in book.expire(&names, now) {
            told.retain(|(address, _)| *address != pin.address);
            told.push((pin.address, pin));
        }
        // What an enforcer was told bit by bit is what a new one would be told at once.
        let mut told: Vec<Pin> = told.into_iter().map(|(_, pin)| pin).filter(|pin| pin.until_ns > now).collect();
        told.sort_by_key(|pin| pin.address);
        let pins = book.pins(&names);
        prop_assert_eq!(&told, &pins);

        let live: Vec<_> = live.into_iter().filter(|(.., until)| *until > now).collect();
        for packet in packets {
            let verdict = evaluate_pinned(&policy, &packet, &pins);
            prop_assert_eq!(table.lookup_pinned(&packet, &pins), verdict, "{:?}", packet);
            let plain = evaluate(&policy, &packet);
            let rules = fitting(&policy, &packet, &live);
            if plain != Verdict::DEFAULT || packet.direction == Direction::Ingress || rules.is_empty() {
                prop_assert_eq!(verdict, plain, "{:?}", packet);
            } else if verdict.action == Action::Allow {
                prop_assert!(rules.iter().any(|rule| rule.id == verdict.rule), "{:?} {:?}", packet, verdict);
            } else {
                prop_assert!(left_out, "{:?} {:?}", packet, rules);
            }
        }
    }

    #[test]
    fn table_and_rules_agree_with_any_pins(policy in policy(), pins in prop::collection::vec(any_pin(), 0..4), packets in prop::collection::vec(packet(), 64)) {
        let table = policy.compile();
        for packet in packets {
            let verdict = evaluate_pinned(&policy, &packet, &pins);
            prop_assert_eq!(table.lookup_pinned(&packet, &pins), verdict, "{:?}", packet);
            let plain = evaluate(&policy, &packet);
            prop_assert!(verdict == plain || plain == Verdict::DEFAULT, "pins decide where nothing else does");
        }
    }

    #[test]
    fn no_text_breaks_the_resolver(policy in policy(), name in "\\PC{0,80}|[a-zA-Z.*\\x00-]{0,80}") {
        let names = Names::new(&policy, &[]);
        let known = name.parse::<NamePattern>().is_ok_and(|pattern| !pattern.is_wildcard());
        prop_assert!(names.query(&name) == NameVerdict::Unknown || known, "{:?}", name);
        prop_assert!(names.pin(&name, address(0), 1).is_err() || known);
    }
}
