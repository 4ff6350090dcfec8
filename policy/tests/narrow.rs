//! The effective policy allows a packet if and only if every layer alone and the flags alone allow it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::IpAddr;

use ipnet::IpNet;
use lattice_policy::{
    Action, Direction, Layer, LayerRule, Local, NameVerdict, NamedFlow, Names, Overlay, Packet, Pin, PinBook,
    Policy, Proto, RuleSpec, Target, effective, effective_on, evaluate, evaluate_pinned, explain,
    explain_name, narrow::only_widens, parse_rule,
};
use proptest::{prelude::*, sample::select};

const POOL: &str = "10.42.0.0/16";
const PREFIX: &str = "fd12:3456:789a::/48";

/// Few addresses and ports, so that rules cover, cut and repeat each other.
fn address() -> impl Strategy<Value = IpAddr> {
    let special =
        ["169.254.169.254", "169.254.1.1", "100.100.100.200", "224.0.0.251", "fe80::1", "fd00:ec2::254"];
    prop_oneof![
        6 => (0u8..8).prop_map(|host| IpAddr::from([10, 42, 0, host])),
        1 => (0u16..4).prop_map(|host| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host])),
        3 => (0u8..8).prop_map(|host| overlay().v6([10, 42, 0, host].into()).into()),
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

fn overlay() -> Overlay {
    Overlay::new(POOL.parse().unwrap(), PREFIX.parse().unwrap()).unwrap()
}

/// The flags as a layer, which alone may be asked.
fn alone(flags: &[RuleSpec]) -> Policy {
    let rule = |spec: &RuleSpec| LayerRule { action: Action::Allow, spec: spec.clone(), policy: None };
    let egress = flags.iter().map(rule).collect();
    Layer { egress, ..Layer::closed("flags") }.policy(1, &overlay())
}

fn names(policy: &Policy) -> Names {
    Names::new(policy, &overlay().nets())
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
        let combined = effective(1, &layers, &flags, &overlay()).unwrap();
        let own = self::alone(&flags);
        let alone: Vec<Policy> = layers.iter().map(|layer| layer.policy(1, &overlay())).collect();
        for packet in packets {
            let by_flags = packet.direction == Direction::Ingress || allows(&own, &packet);
            let all = by_flags && alone.iter().all(|layer| allows(layer, &packet));
            prop_assert_eq!(allows(&combined, &packet), all, "{:?}", packet);
            let opinions = explain(&layers, &flags, &overlay(), &packet);
            prop_assert_eq!(opinions.iter().all(|opinion| opinion.action == Action::Allow), all, "{:?}", packet);
        }
    }

    #[test]
    fn without_layers_flags_and_pool_decide(flags in flags(), packets in prop::collection::vec(packet(), 32)) {
        let combined = effective::<Layer>(1, &[], &flags, &overlay()).unwrap();
        let echo = parse_rule(&format!("icmp:{POOL}")).unwrap();
        let echo_v6 = parse_rule("icmp:fd12:3456:789a::a2a:0/112").unwrap();
        let own = alone(&flags).ingress(Action::Allow, echo).ingress(Action::Allow, echo_v6);
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
        let in_by: Vec<RuleSpec> = in_by.into_iter().filter(|spec| !spec.is_by_name()).collect();
        let local = Local { flags: flags.clone(), most: most.clone(), ingress: in_by.clone(), ..Local::default() };
        let combined = effective_on(1, &layers, &local, &overlay()).unwrap();
        let without = effective(1, &layers, &flags, &overlay()).unwrap();
        let denies = layers.iter().flat_map(|layer| &layer.ingress).filter(|rule| rule.action == Action::Deny);
        let lets = in_by.iter().map(|spec| LayerRule { action: Action::Allow, spec: spec.clone(), policy: None });
        let host = Layer { ingress: lets.chain(denies.cloned()).collect(), ..Layer::closed("host") }.policy(1, &overlay());
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

    /// Where no rule is about IPv6, a peer's second address is no way around what is said of its first.
    #[test]
    fn ipv6_follows_ipv4(layers in layers(0), flags in flags(), packets in prop::collection::vec(packet(), 64)) {
        let is_v4 = |spec: &RuleSpec| !matches!(spec.target, Target::Net(IpNet::V6(_)));
        let flags: Vec<RuleSpec> = flags.into_iter().filter(is_v4).collect();
        let layers: Vec<Layer> = layers.into_iter().map(|mut layer| {
            layer.egress.retain(|rule| is_v4(&rule.spec));
            layer.ingress.retain(|rule| is_v4(&rule.spec));
            layer
        }).collect();
        let combined = effective(1, &layers, &flags, &overlay()).unwrap();
        for packet in packets {
            let IpAddr::V4(peer) = packet.remote else { continue };
            if !overlay().pool().contains(&peer) || packet.proto == 58 {
                continue;
            }
            let proto = if packet.proto == 1 { 58 } else { packet.proto };
            let twin = Packet { remote: overlay().v6(peer).into(), proto, ..packet };
            prop_assert_eq!(allows(&combined, &twin), allows(&combined, &packet), "{:?}", packet);
        }
    }

    #[test]
    fn what_only_widens_takes_nothing_away(
        layers in layers(1), flags in flags(), more in flags(), kept in 0usize..10, packets in prop::collection::vec(packet(), 64),
    ) {
        let changed: Vec<RuleSpec> = more.into_iter().chain(flags.iter().take(kept).cloned()).collect();
        let (old, new) = (effective(1, &layers, &flags, &overlay()).unwrap(), effective(1, &layers, &changed, &overlay()).unwrap());
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
        let combined = effective(1, &layers, &flags, &overlay()).unwrap();
        let known = names(&combined);
        let mut book = PinBook::default();
        let mut left_out = false;
        for (name, address) in &live {
            left_out |= book.learn(&known, name, *address, 9).is_ok_and(|learned| !learned.left_out.is_empty());
        }
        let pins: Vec<Pin> = book.pins(&known);
        let own = alone(&flags);
        let all: Vec<(Policy, Names)> = layers.iter().map(|layer| layer.policy(1, &overlay())).chain([own]).map(|policy| {
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
                let opinions = explain_name(&layers, &flags, &overlay(), &flow);
                prop_assert!(opinions.iter().all(|opinion| opinion.action == Action::Allow), "{:?} {:?}", flow, opinions);
            }
        }
    }
}
