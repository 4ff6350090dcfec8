//! The effective policy allows a packet if and only if every layer alone and the flags alone allow it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use lattice_policy::{
    Action, Direction, Layer, LayerRule, Packet, Policy, RuleSpec, effective, evaluate, explain,
    narrow::only_widens, parse_rule,
};
use proptest::{prelude::*, sample::select};

const POOL: &str = "10.42.0.0/16";

/// Few addresses and ports, so that rules cover, cut and repeat each other.
fn address() -> impl Strategy<Value = IpAddr> {
    let special =
        ["169.254.169.254", "169.254.1.1", "100.100.100.200", "224.0.0.251", "fe80::1", "fd00:ec2::254"];
    prop_oneof![
        6 => (0u8..8).prop_map(|host| IpAddr::from([10, 42, 0, host])),
        1 => (0u16..4).prop_map(|host| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host])),
        2 => select(special.map(|text| text.parse().unwrap()).to_vec()),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    let len = prop_oneof![4 => Just(128u8), 3 => 27u8..=32, 1 => Just(0), 1 => 0u8..=128];
    (address(), len).prop_map(|(address, len)| {
        let max = IpNet::from(address).max_prefix_len();
        IpNet::new(address, len.min(max)).unwrap().trunc()
    })
}

/// Whatever the grammar can say.
fn spec() -> impl Strategy<Value = RuleSpec> {
    let ports = select(vec!["", "", ":80", ":80,443", ":79-81", ":1-65535", ":81-442,444"]);
    (select(vec!["", "", "tcp:", "udp:", "icmp:"]), net(), ports).prop_map(|(proto, net, ports)| {
        let ports = if proto == "icmp:" { "" } else { ports };
        parse_rule(&match net {
            IpNet::V4(net) => format!("{proto}{net}{ports}"),
            IpNet::V6(net) => format!("{proto}[{net}]{ports}"),
        })
        .unwrap()
    })
}

fn rules() -> impl Strategy<Value = Vec<LayerRule>> {
    let action = select(vec![Action::Allow, Action::Allow, Action::Allow, Action::Deny]);
    let rule = (action, spec(), prop::option::of(Just("p".to_owned())));
    prop::collection::vec(rule.prop_map(|(action, spec, policy)| LayerRule { action, spec, policy }), 0..8)
}

fn layers(least: usize) -> impl Strategy<Value = Vec<Layer>> {
    let layer =
        (rules(), rules()).prop_map(|(egress, ingress)| Layer { name: "layer".into(), egress, ingress });
    prop::collection::vec(layer, least..4)
}

fn packet() -> impl Strategy<Value = Packet> {
    let direction = select(vec![Direction::Egress, Direction::Ingress]);
    let port = select(vec![Some(1), Some(79), Some(80), Some(81), Some(443), Some(65535), None]);
    (direction, select(vec![1u8, 6, 6, 17, 58, 47]), address(), port)
        .prop_map(|(direction, proto, remote, port)| Packet { direction, proto, remote, port })
}

fn flags() -> impl Strategy<Value = Vec<RuleSpec>> {
    prop::collection::vec(spec(), 0..8)
}

fn allows(policy: &Policy, packet: &Packet) -> bool {
    evaluate(policy, packet).action == Action::Allow
}

fn pool() -> Ipv4Net {
    POOL.parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn it_allows_what_all_allow(layers in layers(1), flags in flags(), packets in prop::collection::vec(packet(), 96)) {
        let combined = effective(1, &layers, &flags, pool()).unwrap();
        let own = flags.iter().cloned().fold(Policy::new(1), |policy, flag| policy.egress(Action::Allow, flag));
        let alone: Vec<Policy> = layers.iter().map(|layer| layer.policy(1)).collect();
        for packet in packets {
            let by_flags = packet.direction == Direction::Ingress || allows(&own, &packet);
            let all = by_flags && alone.iter().all(|layer| allows(layer, &packet));
            prop_assert_eq!(allows(&combined, &packet), all, "{:?}", packet);
            let opinions = explain(&layers, &flags, pool(), &packet);
            prop_assert_eq!(opinions.iter().all(|opinion| opinion.action == Action::Allow), all, "{:?}", packet);
        }
    }

    #[test]
    fn without_layers_flags_and_pool_decide(flags in flags(), packets in prop::collection::vec(packet(), 32)) {
        let combined = effective::<Layer>(1, &[], &flags, pool()).unwrap();
        let echo = parse_rule(&format!("icmp:{POOL}")).unwrap();
        let own = flags.iter().cloned().fold(Policy::new(1), |policy, flag| policy.egress(Action::Allow, flag));
        let own = own.ingress(Action::Allow, echo);
        for packet in packets {
            prop_assert_eq!(allows(&combined, &packet), allows(&own, &packet), "{:?}", packet);
        }
    }

    #[test]
    fn what_only_widens_takes_nothing_away(
        layers in layers(1), flags in flags(), more in flags(), kept in 0usize..10, packets in prop::collection::vec(packet(), 64),
    ) {
        let changed: Vec<RuleSpec> = more.into_iter().chain(flags.iter().take(kept).cloned()).collect();
        let (old, new) = (effective(1, &layers, &flags, pool()).unwrap(), effective(1, &layers, &changed, pool()).unwrap());
        prop_assert!(only_widens(&old, &old));
        if only_widens(&old, &new) {
            for packet in packets {
                prop_assert!(!allows(&old, &packet) || allows(&new, &packet), "{:?}", packet);
            }
        }
    }
}
