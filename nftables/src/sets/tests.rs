//! Cutting changes nothing: whatever the table, the sets say the same of every packet, and nothing in them overlaps.

use lattice_policy::{Direction, Packet, PortRange, Verdict};
use proptest::{prelude::*, sample::select};

use super::*;

fn address() -> impl Strategy<Value = IpAddr> {
    let edges = ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "10.0.0.255"];
    prop_oneof![
        4 => (0u32..64).prop_map(|low| IpAddr::V4((0x0A00_0000 | low).into())),
        2 => (0u128..16).prop_map(|low| IpAddr::V6((0xFD00 << 112 | low).into())),
        1 => select(edges.map(|text| text.parse::<IpAddr>().unwrap()).to_vec()),
    ]
}

fn line() -> impl Strategy<Value = Match> {
    let port = || prop_oneof![0..20u16, Just(1024), Just(65534), Just(65535)];
    // Reversed ranges do not come from the grammar; they must fit nothing.
    let ports = prop::option::of((port(), port()).prop_map(|(lo, hi)| PortRange { lo, hi }));
    let proto = select(vec![Proto::Any, Proto::Tcp, Proto::Udp, Proto::Icmp]);
    (proto, ports, any::<bool>(), 1..9u32).prop_map(|(proto, ports, allow, rule)| Match {
        proto,
        ports,
        action: if allow { Action::Allow } else { Action::Deny },
        rule: RuleId(rule),
    })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry =
        (address(), 0u8..=128, prop::collection::vec(line(), 0..6)).prop_map(|(address, bits, matches)| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            Entry { net: ipnet::IpNet::new(address, bits % (most + 1)).unwrap().trunc(), matches }
        });
    prop::collection::vec(entry, 0..16).prop_map(|mut entries| {
        entries.sort_by_key(|entry| entry.net);
        entries.dedup_by_key(|entry| entry.net);
        entries
    })
}

fn only<T>(mut fitting: impl Iterator<Item = T>) -> Option<T> {
    let first = fitting.next();
    assert!(fitting.next().is_none(), "elements overlap");
    first
}

/// What the chains do with the sets.
fn look_up(elements: &Elements, packet: &Packet) -> Verdict {
    let spans = match packet.direction {
        Direction::Egress => &elements.egress,
        Direction::Ingress => &elements.ingress,
    };
    let Some(span) = only(spans.iter().filter(|s| {
        s.first.is_ipv4() == packet.remote.is_ipv4() && (s.first..=s.last).contains(&packet.remote)
    })) else {
        return Verdict::DEFAULT;
    };
    let port = packet.port.unwrap_or_default();
    let within = |lines: &[Ports]| {
        only(lines.iter().filter(|l| l.class == span.class && l.ports.contains(&port)).map(|l| l.serial))
    };
    let serial = match packet.proto {
        6 => within(&elements.lines.tcp),
        17 => within(&elements.lines.udp),
        _ => only(elements.lines.icmp.iter().filter(|(class, _)| *class == span.class).map(|l| l.1)),
    };
    let Some(serial) = serial else { return Verdict::DEFAULT };
    let rule = only(elements.lines.rules.iter().filter(|rule| rule.serial == serial)).unwrap();
    Verdict::of(rule.action, rule.rule)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn sets_and_table_agree(
        egress in entries(),
        ingress in entries(),
        addresses in prop::collection::vec(address(), 16),
        ports in prop::collection::vec(any::<u16>(), 4),
    ) {
        let table = Table { egress, ingress };
        let elements = Classes::new(Serials::new(7)).table(&table).unwrap();
        for remote in addresses {
            for port in ports.iter().copied().chain([0, 1, 19, 20, 1023, 1024, 65534, 65535]) {
                for direction in [Direction::Egress, Direction::Ingress] {
                    let icmp = if remote.is_ipv4() { 1 } else { 58 };
                    for proto in [6, 17, icmp] {
                        let port = (proto != icmp).then_some(port);
                        let packet = Packet { direction, proto, remote, port };
                        prop_assert_eq!(look_up(&elements, &packet), table.lookup(&packet), "{:?}", packet);
                    }
                }
            }
        }
    }
}

#[test]
fn equal_neighbours_are_one_span_and_one_class() {
    let allow = Match { proto: Proto::Any, ports: None, action: Action::Allow, rule: RuleId(3) };
    let entry = |net: &str| Entry { net: net.parse().unwrap(), matches: vec![allow] };
    let egress = vec![entry("10.0.0.0/25"), entry("10.0.0.128/25"), entry("10.0.2.0/24"), entry("fd00::/8")];
    let elements = Classes::new(Serials::new(1)).table(&Table { egress, ingress: Vec::new() }).unwrap();
    let spans: Vec<String> =
        elements.egress.iter().map(|s| format!("{}-{}={}", s.first, s.last, s.class)).collect();
    let v6 = "fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff=1";
    assert_eq!(spans, ["10.0.0.0-10.0.0.255=1", "10.0.2.0-10.0.2.255=1", v6]);
    assert_eq!(elements.lines.tcp, [Ports { class: 1, ports: 0..=65535, serial: 1 }]);
    assert_eq!(elements.lines.icmp, [(1, 1)]);
}

#[test]
fn no_serial_is_used_twice() {
    let allow = Match { proto: Proto::Any, ports: None, action: Action::Allow, rule: RuleId(3) };
    let table = |net: &str| Table {
        egress: vec![Entry { net: net.parse().unwrap(), matches: vec![allow] }],
        ingress: Vec::new(),
    };
    let mut first = Classes::new(Serials::new(u32::MAX - 2));
    assert_eq!(first.table(&table("10.0.0.0/8")).unwrap().lines.rules[0].serial, u32::MAX - 2);
    let mut second = Classes::new(first.next());
    assert_eq!(second.table(&table("10.0.0.0/8")).unwrap().lines.rules[0].serial, u32::MAX - 1);
    let mut third = Classes::new(second.next());
    assert_eq!(third.table(&table("10.0.0.0/8")), Err(Exhausted));
}
