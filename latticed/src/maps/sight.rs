//! Who may learn of whom: two peers are in each other's map when a flow between them is possible, in either direction, by what the
//! layers of both allow. A compromised sandbox then neither knows nor can shake hands with those that it may not talk to.
//!
//! Layers bind sandboxes. A node has no enforcer, so nothing is known that it would not do: it and a sandbox meet when the
//! sandbox's layers allow a flow, and nodes always do.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use lattice_policy::{Action, Direction, Layer, LayerRule, Overlay, Proto, Target};

/// A peer, as flows see it.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Its overlay address.
    pub address: Ipv4Addr,
    /// What limits it; `None`: nothing does.
    pub layers: Option<&'a [Arc<Layer>]>,
}

/// The other end of a flow.
#[derive(Debug, Clone, Copy)]
struct Remote {
    v4: Ipv4Addr,
    /// `None`: the flow is one of IPv4.
    v6: Option<Ipv6Addr>,
}

/// Whether some flow between the two is possible, of IPv4 or IPv6.
pub fn may_meet(overlay: &Overlay, a: End<'_>, b: End<'_>) -> bool {
    let both = [(a, b), (b, a)];
    let by_v4 = |end: End<'_>| Remote { v4: end.address, v6: None };
    let by_v6 = |end: End<'_>| Remote { v6: Some(overlay.v6(end.address)), ..by_v4(end) };
    both.iter().any(|(from, to)| may_open(*from, *to, by_v4))
        || both.iter().any(|(from, to)| may_open(*from, *to, by_v6))
}

fn may_open(from: End<'_>, to: End<'_>, remote: impl Fn(End<'_>) -> Remote) -> bool {
    let mut flows = Flows::all();
    for layer in from.layers.into_iter().flatten() {
        flows = flows.both(&Flows::of(layer.rules(Direction::Egress), remote(to)));
    }
    for layer in to.layers.into_iter().flatten() {
        flows = flows.both(&Flows::of(layer.rules(Direction::Ingress), remote(from)));
    }
    !flows.is_empty()
}

/// Ports, as ranges that are sorted and apart.
type Ports = Vec<(u32, u32)>;

const EVERY_PORT: (u32, u32) = (0, u16::MAX as u32);

/// Whether a rule is about `remote`. One by DNS name is not: names open no addresses of the overlay.
fn names(rule: &LayerRule, remote: Remote) -> bool {
    match rule.spec.target {
        // Of either version: IPv6 follows IPv4.
        Target::Net(IpNet::V4(net)) => net.contains(&remote.v4),
        Target::Net(IpNet::V6(net)) => remote.v6.is_some_and(|v6| net.contains(&v6)),
        Target::Name(_) => false,
    }
}

/// The flows between two addresses that something allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Flows {
    tcp: Ports,
    udp: Ports,
    icmp: bool,
}

impl Flows {
    fn all() -> Self {
        Self { tcp: vec![EVERY_PORT], udp: vec![EVERY_PORT], icmp: true }
    }

    fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty() && !self.icmp
    }

    /// What rules of one layer and direction allow with `remote`: a deny rule wins, and the rest is denied.
    fn of(rules: &[LayerRule], remote: Remote) -> Self {
        let (mut allowed, mut denied) = (Self::default(), Self::default());
        for rule in rules.iter().filter(|rule| names(rule, remote)) {
            let to = if rule.action == Action::Allow { &mut allowed } else { &mut denied };
            let mut ports: Ports =
                rule.spec.ports.iter().map(|ports| (ports.lo.into(), ports.hi.into())).collect();
            let any_port = ports.is_empty();
            if any_port {
                ports.push(EVERY_PORT);
            }
            match rule.spec.proto {
                Proto::Icmp => to.icmp = true,
                Proto::Tcp => to.tcp.extend(ports),
                Proto::Udp => to.udp.extend(ports),
                Proto::Any => {
                    to.icmp |= any_port;
                    to.tcp.extend_from_slice(&ports);
                    to.udp.extend(ports);
                }
            }
        }
        Self {
            tcp: less(joined(allowed.tcp), &joined(denied.tcp)),
            udp: less(joined(allowed.udp), &joined(denied.udp)),
            icmp: allowed.icmp && !denied.icmp,
        }
    }

    fn both(&self, other: &Self) -> Self {
        let both = |a: &Ports, b: &Ports| less(a.clone(), &less(vec![EVERY_PORT], b));
        Self {
            tcp: both(&self.tcp, &other.tcp),
            udp: both(&self.udp, &other.udp),
            icmp: self.icmp && other.icmp,
        }
    }
}

/// Sorted, and apart from each other.
fn joined(mut ports: Ports) -> Ports {
    ports.sort_unstable();
    let mut joined: Ports = Vec::new();
    for (lo, hi) in ports {
        match joined.last_mut() {
            Some(last) if lo <= last.1 + 1 => last.1 = last.1.max(hi),
            _ => joined.push((lo, hi)),
        }
    }
    joined
}

/// `ports` without `without`; both are sorted and apart.
fn less(ports: Ports, without: &Ports) -> Ports {
    let mut rest = Vec::new();
    let mut next = 0;
    for (mut lo, hi) in ports {
        while without.get(next).is_some_and(|(_, end)| *end < lo) {
            next += 1;
        }
        let mut at = next;
        while let Some(&(from, to)) = without.get(at).filter(|(from, _)| *from <= hi) {
            if from > lo {
                rest.push((lo, from - 1));
            }
            lo = to + 1;
            at += 1;
        }
        if lo <= hi {
            rest.push((lo, hi));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use lattice_policy::{Packet, evaluate, parse_rule};
    use proptest::prelude::*;

    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);
    const B: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 3);

    fn overlay() -> Overlay {
        Overlay::new("10.42.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()).unwrap()
    }

    fn rule() -> impl Strategy<Value = LayerRule> {
        let v6 = ["fd12:3456:789a::a2a:2", "fd12:3456:789a::/48", "::/0"];
        let net = prop::sample::select(
            [&["10.42.0.2", "10.42.0.3", "10.42.0.0/16", "0.0.0.0/0"], &v6[..]].concat(),
        );
        // So few ports that rules meet.
        (any::<bool>(), 0..4usize, net, prop::option::of((1u16..6, 0u16..3))).prop_map(
            |(allow, proto, net, ports)| {
                let proto = ["", "tcp:", "udp:", "icmp:"][proto];
                let net = if net.contains("::") { format!("[{net}]") } else { net.to_owned() };
                let ports = ports.filter(|_| proto != "icmp:");
                let ports = ports.map_or(String::new(), |(lo, more)| format!(":{lo}-{}", lo + more));
                LayerRule {
                    action: if allow { Action::Allow } else { Action::Deny },
                    spec: parse_rule(&format!("{proto}{net}{ports}")).unwrap(),
                    policy: None,
                }
            },
        )
    }

    fn layers() -> impl Strategy<Value = Option<Vec<Arc<Layer>>>> {
        let rules = || prop::collection::vec(rule(), 0..4);
        let layer = (rules(), rules())
            .prop_map(|(egress, ingress)| Arc::new(Layer { name: "l".into(), egress, ingress }));
        prop::option::weighted(0.9, prop::collection::vec(layer, 1..3))
    }

    /// By the reference evaluator, packet by packet.
    fn passes(
        layers: Option<&[Arc<Layer>]>,
        direction: Direction,
        remote: IpAddr,
        proto: u8,
        port: u16,
    ) -> bool {
        let port = (![1, 58].contains(&proto)).then_some(port);
        let packet = Packet { direction, proto, remote, port };
        layers
            .into_iter()
            .flatten()
            .all(|layer| evaluate(&layer.policy(1, &overlay()), &packet).action == Action::Allow)
    }

    proptest! {
        #[test]
        fn they_meet_exactly_when_some_packet_passes(a in layers(), b in layers()) {
            let (a, b) = (a.as_deref(), b.as_deref());
            let opens = |from: (Option<&[_]>, Ipv4Addr), to: (Option<&[_]>, Ipv4Addr)| {
                // No port above those of the rules is told apart.
                let packets = [1u8, 6, 17, 58].into_iter().flat_map(|proto| (0..10u16).map(move |port| (proto, port)));
                let v4 = [from.1, to.1].map(IpAddr::from);
                let v6 = [from.1, to.1].map(|address| overlay().v6(address).into());
                packets.into_iter().any(|(proto, port)| {
                    [v4, v6].iter().any(|[from_at, to_at]| {
                        passes(from.0, Direction::Egress, *to_at, proto, port)
                            && passes(to.0, Direction::Ingress, *from_at, proto, port)
                    })
                })
            };
            let expected = opens((a, A), (b, B)) || opens((b, B), (a, A));
            let (a, b) = (End { address: A, layers: a }, End { address: B, layers: b });
            prop_assert_eq!(may_meet(&overlay(), a, b), expected);
            prop_assert_eq!(may_meet(&overlay(), b, a), expected);
        }
    }
}
