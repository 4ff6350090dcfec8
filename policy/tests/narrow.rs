//! The effective policy allows a packet if and only if every layer alone and the flags alone allow it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use lattice_policy::{
    Action, Direction, Layer, LayerRule, Local, NameVerdict, NamedFlow, Names, Packet, Pin, PinBook, Policy,
    Proto, RuleSpec, effective, effective_on, evaluate, evaluate_pinned, explain, explain_name,
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
        2 => public(),
    ]
}

/// Addresses that names may open.
fn public() -> impl Strategy<Value = IpAddr> {
    select(["93.184.216.1", "93.184.216.2", "2606:4700::1"].map(|text| text.parse().unwrap()).to_vec())
}

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a.example.com", "b.example.com", "x.a.example.com", "c.test"])
}

fn net() -> impl Strategy<Value = IpNet> {
    let len = prop_oneof![4 => Just(128u8), 3 => 27u8..=32, 1 => Just(0), 1 => 0u8..=128];
    (address(), len).prop_map(|(address, len)| {
        let max = IpNet::from(address).max_prefix_len();
        IpNet::new(address, len.min(max)).unwrap().trunc()
    })
}

fn target() -> impl Strategy<Value = String> {
    let patterns =
        ["a.example.com", "b.example.com", "*.example.com", "*.a.example.com", "c.test", "*.c.test"];
    let net = net().prop_map(|net| match net {
        IpNet::V4(net) => net.to_string(),
        IpNet::V6(net) => format!("[{net}]"),
    });
    prop_oneof![2 => net, 1 => select(patterns.to_vec()).prop_map(str::to_owned)]
}

/// Whatever the grammar can say.
fn spec() -> impl Strategy<Value = RuleSpec> {
    let ports = select(vec!["", "", ":80", ":80,443", ":79-81", ":1-65535", ":81-442,444"]);
    (select(vec!["", "", "tcp:", "udp:", "icmp:"]), target(), ports).prop_map(|(proto, target, ports)| {
        let ports = if proto == "icmp:" { "" } else { ports };
        parse_rule(&format!("{proto}{target}{ports}")).unwrap()
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

fn names(policy: &Policy) -> Names {
    Names::new(policy, &[IpNet::V4(pool())])
}

/// Whether a policy alone allows a packet of a flow that the agent opened to `name`, after it learned the address for it.
fn allows_to(policy: &Policy, names: &Names, packet: &Packet, name: &str) -> bool {
    let pin = names.pin(name, packet.remote, 9).ok().flatten();
    let denied = matches!(names.query(name), NameVerdict::Denied(_));
    !denied && evaluate_pinned(policy, packet, pin.as_slice()).action == Action::Allow
}

fn flow(name: &str, packet: &Packet) -> Option<NamedFlow> {
    let proto = match packet.proto {
        6 => Proto::Tcp,
        17 => Proto::Udp,
        1 | 58 => Proto::Icmp,
        _ => return None,
    };
    Some(NamedFlow { name: name.parse().unwrap(), proto, port: packet.port })
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

    /// A host's limit is one more that egress must meet; whom it lets in comes in unless a layer denies it.
    #[test]
    fn a_host_limits_flags_and_lets_in(
        layers in layers(0), flags in flags(), most in prop::option::of(flags()), in_by in flags(),
        packets in prop::collection::vec(packet(), 64),
    ) {
        let alone = |specs: &[RuleSpec]| specs.iter().cloned().fold(Policy::new(1), |policy, spec| policy.egress(Action::Allow, spec));
        let in_by: Vec<RuleSpec> = in_by.into_iter().filter(|spec| !spec.is_by_name()).collect();
        let local = Local { flags: flags.clone(), most: most.clone(), ingress: in_by.clone(), ..Local::default() };
        let combined = effective_on(1, &layers, &local, pool()).unwrap();
        let without = effective(1, &layers, &flags, pool()).unwrap();
        let denies = layers.iter().flat_map(|layer| &layer.ingress).filter(|rule| rule.action == Action::Deny);
        let host = in_by.iter().cloned().fold(Policy::new(1), |policy, spec| policy.ingress(Action::Allow, spec));
        let host = denies.fold(host, |policy, rule| policy.ingress(Action::Deny, rule.spec.clone()));
        for packet in packets {
            let expected = match packet.direction {
                Direction::Egress => {
                    let in_most = most.as_ref().is_none_or(|most| allows(&alone(most), &packet));
                    in_most && allows(&without, &packet)
                }
                Direction::Ingress => allows(&without, &packet) || allows(&host, &packet),
            };
            prop_assert_eq!(allows(&combined, &packet), expected, "{:?}", packet);
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
            let (before, after) = (names(&old), names(&new));
            for packet in packets {
                prop_assert!(!allows(&old, &packet) || allows(&new, &packet), "{:?}", packet);
                for name in ["a.example.com", "x.a.example.com", "c.test"] {
                    let resolved = |names: &Names| matches!(names.query(name), NameVerdict::Allowed(_));
                    prop_assert!(!resolved(&before) || resolved(&after), "{}", name);
                    let to = |policy, names| allows_to(policy, names, &packet, name);
                    prop_assert!(!resolved(&before) || !to(&old, &before) || to(&new, &after), "{} {:?}", name, packet);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A flow to an address passes when all allow it, each by the address or by the one same name that the agent asked for.
    #[test]
    fn it_allows_what_all_allow_by_a_name(
        layers in layers(0),
        flags in flags(),
        live in prop::collection::vec((name(), prop_oneof![3 => public(), 1 => address()]), 0..6),
        packets in prop::collection::vec(packet(), 48),
    ) {
        let combined = effective(1, &layers, &flags, pool()).unwrap();
        let known = names(&combined);
        let mut book = PinBook::default();
        let mut left_out = false;
        for (name, address) in &live {
            left_out |= book.learn(&known, name, *address, 9).is_ok_and(|learned| !learned.left_out.is_empty());
        }
        let pins: Vec<Pin> = book.pins(&known);
        let own = flags.iter().cloned().fold(Policy::new(1), |policy, flag| policy.egress(Action::Allow, flag));
        let all: Vec<(Policy, Names)> = layers.iter().map(|layer| layer.policy(1)).chain([own]).map(|policy| {
            let names = names(&policy);
            (policy, names)
        }).collect();
        for packet in packets.into_iter().filter(|packet| packet.direction == Direction::Egress) {
            let by_address = all.iter().all(|(policy, _)| allows(policy, &packet));
            let asked = live.iter().filter(|(_, address)| *address == packet.remote).map(|(name, _)| *name);
            let by_name = |name: &&str| all.iter().all(|(policy, names)| allows_to(policy, names, &packet, name));
            let expected = by_address || asked.clone().any(|name| by_name(&name));
            let allowed = evaluate_pinned(&combined, &packet, &pins).action == Action::Allow;
            prop_assert!(allowed == expected || (expected && left_out), "{:?} {} {}", packet, allowed, expected);

            for name in asked {
                let Some(flow) = flow(name, &packet).filter(|_| by_name(&name) && !by_address) else { continue };
                let opinions = explain_name(&layers, &flags, pool(), &flow);
                prop_assert!(opinions.iter().all(|opinion| opinion.action == Action::Allow), "{:?} {:?}", flow, opinions);
            }
        }
    }
}
