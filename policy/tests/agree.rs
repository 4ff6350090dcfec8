//! Flattening changes nothing: for any policy and any packet the table says what the rules say.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use lattice_policy::{
    Action, Direction, Packet, Policy, PortRange, Proto, RuleSpec, Table, Target, builtin, evaluate,
};
use proptest::{prelude::*, sample::select};

/// Few addresses and ports, so that rules cover, shadow and repeat each other.
fn address() -> impl Strategy<Value = IpAddr> {
    let special = [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.1.1",
        "100.100.100.200",
        "224.0.0.251",
        "255.255.255.255",
        "0.0.0.0",
        "fd00:ec2::254",
        "fe80::1",
        "ff02::fb",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
    ];
    prop_oneof![
        4 => (0u32..64, 0u32..4).prop_map(|(low, high)| Ipv4Addr::from(0x0A00_0000 | high << 22 | low).into()),
        3 => (0u128..16, 0u128..4).prop_map(|(low, high)| Ipv6Addr::from(0xFD00 << 112 | high << 60 | low).into()),
        3 => select(special.map(|text| text.parse::<IpAddr>().unwrap()).to_vec()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), any::<bool>(), 0u8..=128).prop_map(|(address, exact, len)| {
        let max = IpNet::from(address).max_prefix_len();
        IpNet::new(address, if exact { max } else { len % (max + 1) }).unwrap()
    })
}

fn port() -> impl Strategy<Value = u16> {
    select(vec![0, 1, 22, 53, 79, 80, 81, 443, 8080, 65534, 65535])
}

fn rule() -> impl Strategy<Value = (Direction, Action, RuleSpec)> {
    let direction = select(vec![Direction::Egress, Direction::Ingress]);
    let action = select(vec![Action::Allow, Action::Allow, Action::Deny]);
    let proto = select(vec![Proto::Any, Proto::Tcp, Proto::Udp, Proto::Icmp]);
    // Reversed ranges and ports on ICMP do not come from the grammar; they must fit nothing rather than differ.
    let ports = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec((port(), port()).prop_map(|(lo, hi)| PortRange { lo, hi }), 1..5)
    ];
    (direction, action, proto, net(), ports).prop_map(|(direction, action, proto, net, ports)| {
        let spec = RuleSpec { proto, target: Target::Net(net), ports, text: net.to_string() };
        (direction, action, spec)
    })
}

fn policy(most: usize) -> impl Strategy<Value = Policy> {
    prop::collection::vec(rule(), 0..most).prop_map(|rules| {
        rules.into_iter().fold(Policy::new(1), |policy, (direction, action, spec)| match direction {
            Direction::Egress => policy.egress(action, spec),
            Direction::Ingress => policy.ingress(action, spec),
        })
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    let direction = select(vec![Direction::Egress, Direction::Ingress]);
    let proto = prop_oneof![8 => select(vec![1, 6, 6, 17, 17, 58]), 1 => any::<u8>()];
    (direction, proto, address(), prop::option::weighted(0.8, port()))
        .prop_map(|(direction, proto, remote, port)| Packet { direction, proto, remote, port })
}

/// First and last address of every prefix of the policy and the built-in rules, and their neighbours.
fn edges(policy: &Policy) -> Vec<IpAddr> {
    let around = |net: IpNet| {
        let (first, last) = (net.network(), net.broadcast());
        let step = |address: IpAddr, by: i8| match address {
            IpAddr::V4(a) => IpAddr::V4(a.to_bits().wrapping_add_signed(by.into()).into()),
            IpAddr::V6(a) => IpAddr::V6(a.to_bits().wrapping_add_signed(by.into()).into()),
        };
        [first, last, step(first, -1), step(last, 1)]
    };
    policy.rules().iter().chain(builtin::rules()).flat_map(|rule| around(rule.net)).collect()
}

fn well_formed(table: &Table) -> Result<(), TestCaseError> {
    for entries in [&table.egress, &table.ingress] {
        prop_assert!(entries.windows(2).all(|pair| pair[0].net < pair[1].net), "sorted and unique");
        for entry in entries {
            prop_assert_eq!(entry.net, entry.net.trunc());
            let repeated =
                entry.matches.iter().enumerate().find(|(i, line)| entry.matches[..*i].contains(line));
            prop_assert!(repeated.is_none());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn table_and_rules_agree(policy in policy(24), packets in prop::collection::vec(packet(), 64)) {
        let table = policy.compile();
        well_formed(&table)?;
        for packet in packets {
            prop_assert_eq!(table.lookup(&packet), evaluate(&policy, &packet), "{:?}", packet);
        }
    }

    #[test]
    fn table_and_rules_agree_at_the_edges(
        policy in policy(12),
        proto in select(vec![1u8, 6, 17, 58]),
        port in prop::option::of(port()),
    ) {
        let table = policy.compile();
        for remote in edges(&policy) {
            for direction in [Direction::Egress, Direction::Ingress] {
                let packet = Packet { direction, proto, remote, port };
                prop_assert_eq!(table.lookup(&packet), evaluate(&policy, &packet), "{:?}", packet);
            }
        }
    }

    #[test]
    fn another_deny_never_opens_anything(
        policy in policy(12),
        rule in rule(),
        packets in prop::collection::vec(packet(), 32),
    ) {
        let (direction, _, spec) = rule;
        let narrower = match direction {
            Direction::Egress => policy.clone().egress(Action::Deny, spec),
            Direction::Ingress => policy.clone().ingress(Action::Deny, spec),
        };
        for packet in packets {
            if evaluate(&policy, &packet).action == Action::Deny {
                prop_assert_eq!(evaluate(&narrower, &packet).action, Action::Deny);
            }
        }
    }
}
