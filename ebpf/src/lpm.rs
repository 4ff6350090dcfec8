//! Turns a policy table into the keys and values of the kernel's longest-prefix-match tries.
//!
//! A trie returns one value per lookup. Up to [`INLINE_RANGES`] lines of an entry travel in the value of its prefix, in
//! order. A longer entry becomes a *set*: for each protocol, the ports are cut into disjoint intervals, each with the
//! line that is first to name it, and each interval into aligned powers of two, which are prefixes of a port. So the
//! order of lines, which a trie cannot express, is decided here.

use std::ops::RangeInclusive;

use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use lattice_policy::{
    Action, Direction, Match, Proto, Table,
    table::{icmp_line, port_intervals},
};

use crate::abi::{self, Address, INLINE_RANGES, PortKey, PortValue, PrefixKey, PrefixValue, Range};

/// Bits of a [`PrefixKey`] before its network, and of a [`PortKey`] before its port.
const PREFIX_HEAD_BITS: u32 = 32;
const PORT_HEAD_BITS: u32 = 48;

/// The contents of one policy slot.
#[derive(Default)]
pub(crate) struct Tries {
    slot: u8,
    pub(crate) prefixes: Vec<(Key<PrefixKey>, PrefixValue)>,
    pub(crate) ports: Vec<(Key<PortKey>, PortValue)>,
}

impl Tries {
    /// What `table` is in `slot`.
    pub(crate) fn new(slot: u8, table: &Table) -> Self {
        let mut tries = Self { slot, ..Self::default() };
        let mut sets = 0;
        for (direction, entries) in [(Direction::Egress, &table.egress), (Direction::Ingress, &table.ingress)]
        {
            for entry in entries {
                let value = match inline(&entry.matches) {
                    Some(value) => value,
                    None => {
                        sets += 1;
                        tries.add_set(sets, &entry.matches);
                        PrefixValue { set: sets, ..PrefixValue::default() }
                    }
                };
                tries.prefixes.push((prefix_key(slot, direction, entry.net), value));
            }
        }
        tries
    }

    fn add_set(&mut self, set: u32, matches: &[Match]) {
        let slot = self.slot;
        let key = |proto, port, bits| {
            let port_be = u16::to_be_bytes(port);
            Key::new(PORT_HEAD_BITS + bits, PortKey { set, proto: abi::proto(proto), slot, port_be })
        };
        for proto in [Proto::Tcp, Proto::Udp] {
            for (ports, first) in port_intervals(proto, matches) {
                self.ports.extend(aligned(ports).map(|(port, bits)| (key(proto, port, bits), value(first))));
            }
        }
        self.ports.extend(icmp_line(matches).map(|m| (key(Proto::Icmp, 0, 0), value(m))));
    }
}

fn prefix_key(slot: u8, direction: Direction, net: IpNet) -> Key<PrefixKey> {
    let net_bits = u32::from(net.prefix_len());
    let key = PrefixKey {
        slot,
        direction: abi::direction(direction),
        family: abi::family(net.addr()),
        pad: 0,
        net: Address::from(net.network()),
    };
    Key::new(PREFIX_HEAD_BITS + net_bits, key)
}

fn value(m: &Match) -> PortValue {
    PortValue { action: action(m.action).into(), rule: m.rule.0 }
}

const fn action(action: Action) -> u8 {
    match action {
        Action::Allow => abi::ALLOW,
        Action::Deny => abi::DENY,
    }
}

fn inline(matches: &[Match]) -> Option<PrefixValue> {
    let (count, ranges) = ranges(matches)?;
    Some(PrefixValue { set: 0, count, ranges })
}

/// Lines as they travel in one value; `None` when they are too many for that.
pub(crate) fn ranges(matches: &[Match]) -> Option<(u32, [Range; INLINE_RANGES])> {
    let mut ranges = [Range::default(); INLINE_RANGES];
    if matches.len() > INLINE_RANGES {
        return None;
    }
    for (range, m) in ranges.iter_mut().zip(matches) {
        let (lo, hi) = m.ports.map_or((0, u16::MAX), |p| (p.lo, p.hi));
        *range = Range {
            lo,
            hi,
            proto: abi::proto(m.proto),
            action: action(m.action),
            every_port: m.ports.is_none().into(),
            pad: 0,
            rule: m.rule.0,
        };
    }
    Some((u32::try_from(matches.len()).ok()?, ranges))
}

/// Cuts an interval into aligned blocks: the first port of each and the number of leading bits that its ports share.
fn aligned(ports: RangeInclusive<u16>) -> impl Iterator<Item = (u16, u32)> {
    let end = u32::from(*ports.end()) + 1;
    let mut next = u32::from(*ports.start());
    std::iter::from_fn(move || {
        let port = u16::try_from(next).ok().filter(|_| next < end)?;
        let fits = (end - next).ilog2();
        let log = if next == 0 { fits } else { fits.min(next.trailing_zeros()) };
        next += 1 << log;
        Some((port, 16 - log))
    })
}

#[cfg(test)]
mod tests {
    use lattice_policy::{Entry, PortRange, RuleId};
    use proptest::prelude::*;

    use super::*;

    fn protos() -> impl Strategy<Value = Proto> {
        prop_oneof![Just(Proto::Any), Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Icmp)]
    }

    fn lines() -> impl Strategy<Value = Vec<Match>> {
        // Few distinct ports, so that ranges overlap and touch.
        let port = prop_oneof![0..20u16, Just(1023), Just(1024), Just(65534), Just(65535), any::<u16>()];
        let ports = proptest::option::of((port.clone(), port))
            .prop_map(|p| p.map(|(a, b)| PortRange { lo: a.min(b), hi: a.max(b) }));
        let line = (protos(), ports, any::<bool>(), 1..9u32).prop_map(|(proto, ports, allow, rule)| Match {
            proto,
            ports,
            action: if allow { Action::Allow } else { Action::Deny },
            rule: RuleId(rule),
        });
        proptest::collection::vec(line, 0..20)
    }

    /// What the program does with the tries.
    fn look_up(tries: &Tries, proto: Proto, port: u16) -> Option<(u8, u32)> {
        let value = &tries.prefixes[0].1;
        let inline = value.ranges[..value.count as usize].iter().find(|r| {
            (r.proto == 0 || r.proto == abi::proto(proto))
                && (r.every_port == 1 || (proto != Proto::Icmp && (r.lo..=r.hi).contains(&port)))
        });
        if let Some(range) = inline {
            return Some((range.action, range.rule));
        }
        let hits = tries.ports.iter().filter(|(key, _)| {
            let (bits, data) = (key.prefix_len() - PORT_HEAD_BITS, key.data());
            let block = u32::from(u16::from_be_bytes(data.port_be));
            (data.slot, data.set) == (3, value.set)
                && data.proto == abi::proto(proto)
                && (block ^ u32::from(port)) >> (16 - bits) == 0
        });
        let hits: Vec<_> = hits.collect();
        assert!(hits.len() <= 1, "blocks overlap");
        hits.first().map(|(_, v)| (v.action as u8, v.rule))
    }

    fn first_fit(matches: &[Match], proto: Proto, port: u16) -> Option<(u8, u32)> {
        let fits = |m: &&Match| {
            m.names(proto) && m.ports.is_none_or(|p| proto != Proto::Icmp && (p.lo..=p.hi).contains(&port))
        };
        matches.iter().find(fits).map(|m| (action(m.action), m.rule.0))
    }

    proptest! {
        #[test]
        fn the_first_line_that_fits_decides(matches in lines(), ports in proptest::collection::vec(any::<u16>(), 8)) {
            let net = "192.0.2.0/24".parse().unwrap();
            let table = Table { egress: vec![Entry { net, matches: matches.clone() }], ingress: Vec::new() };
            let tries = Tries::new(3, &table);
            let edges = matches.iter().filter_map(|m| m.ports).flat_map(|p| {
                [p.lo, p.hi, p.lo.saturating_sub(1), p.hi.saturating_add(1)]
            });
            for port in edges.chain(ports).chain([0, 65535]) {
                for proto in [Proto::Tcp, Proto::Udp] {
                    prop_assert_eq!(look_up(&tries, proto, port), first_fit(&matches, proto, port));
                }
            }
            prop_assert_eq!(look_up(&tries, Proto::Icmp, 0), first_fit(&matches, Proto::Icmp, 0));
        }

        #[test]
        fn blocks_are_aligned_and_cover_the_interval(a: u16, b: u16) {
            let (lo, hi) = (a.min(b), a.max(b));
            let mut next = u32::from(lo);
            for (port, bits) in aligned(lo..=hi) {
                let size = 1u32 << (16 - bits);
                prop_assert_eq!(u32::from(port), next);
                prop_assert_eq!(next % size, 0);
                next += size;
            }
            prop_assert_eq!(next, u32::from(hi) + 1);
        }
    }

    #[test]
    fn a_short_entry_needs_no_set() {
        let m = Match { proto: Proto::Any, ports: None, action: Action::Allow, rule: RuleId(3) };
        let entry = |n| Entry { net: "2001:db8::/32".parse().unwrap(), matches: vec![m; n] };
        let short = Tries::new(0, &Table { egress: vec![entry(INLINE_RANGES)], ingress: Vec::new() });
        assert!(short.ports.is_empty() && short.prefixes[0].1.set == 0);
        let long = Tries::new(0, &Table { egress: Vec::new(), ingress: vec![entry(INLINE_RANGES + 1)] });
        assert_eq!(long.ports.len(), 3, "one block for each protocol");
        assert_eq!(long.prefixes[0].0.prefix_len(), 64);
        assert_eq!(long.prefixes[0].0.data().direction, 1);
    }
}
