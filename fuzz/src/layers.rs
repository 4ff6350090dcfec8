//! What the control plane sends as a policy, from its bytes to the table that an enforcer loads.

use std::net::IpAddr;

use ipnet::IpNet;
use lattice_bootstrap::layers::read as read_layers;
use lattice_policy::{
    Action, Direction, Overlay, Packet, Policy, Proto, RuleSpec, Target, effective, evaluate, explain,
    parse_rule,
};
use lattice_wire::MapPolicy;

use crate::json::read;

/// Rules whose edges are looked at; every packet is judged by all of them.
const LOOKED_AT: usize = 16;

/// A policy and, in each line below, a flag.
pub(crate) fn layers(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(sent) = read::<MapPolicy>(lines.next().unwrap_or_default()) else { return false };
    let flag = |line: &[u8]| parse_rule(std::str::from_utf8(line).ok()?).ok();
    let flags: Vec<RuleSpec> = lines.filter_map(flag).collect();
    let layers = read_layers(Some(&sent));
    assert_eq!(layers.is_empty(), sent.layers.is_empty(), "no layer may be left out");
    let (pool, prefix) = ("10.42.0.0/16".parse().expect("a network"), Overlay::prefix_of([7; 5]));
    let overlay = Overlay::new(pool, prefix).expect("a prefix");
    let Ok(policy) = effective(1, &layers, &flags, &overlay) else { return false };
    let table = policy.compile();
    for packet in packets(&policy, &flags) {
        let verdict = evaluate(&policy, &packet);
        assert_eq!(table.lookup(&packet), verdict, "the table about {packet:?}");
        let opinions = explain(&layers, &flags, &overlay, &packet);
        let all_allow = opinions.iter().all(|opinion| opinion.action == Action::Allow);
        assert_eq!(verdict.action == Action::Allow, all_allow, "the layers about {packet:?}: {opinions:?}");
    }
    true
}

/// Packets just inside and just outside what the rules name.
fn packets(policy: &Policy, flags: &[RuleSpec]) -> Vec<Packet> {
    let rules = policy.rules().iter().map(|rule| (rule.net, rule.proto, rule.ports.first().copied()));
    let flags = flags.iter().filter_map(|flag| match flag.target {
        Target::Net(net) => Some((net, flag.proto, flag.ports.first().copied())),
        Target::Name(_) => None,
    });
    let mut packets = Vec::new();
    for (net, proto, range) in rules.take(LOOKED_AT).chain(flags.take(LOOKED_AT)) {
        let proto = match (proto, net) {
            (Proto::Any | Proto::Tcp, _) => 6,
            (Proto::Udp, _) => 17,
            (Proto::Icmp, IpNet::V4(_)) => 1,
            (Proto::Icmp, IpNet::V6(_)) => 58,
        };
        let ports = match range {
            Some(range) => [Some(range.lo), range.hi.checked_add(1), None],
            None => [Some(80), None, None],
        };
        for remote in [net.network(), net.broadcast(), behind(net.broadcast())] {
            for port in ports {
                for direction in [Direction::Egress, Direction::Ingress] {
                    packets.push(Packet { direction, proto, remote, port });
                }
            }
        }
    }
    packets
}

fn behind(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add(1).into()),
    }
}
