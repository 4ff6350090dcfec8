//! A policy in the form in which the filter runs it: a binary search for the address, one for the port.

mod counters;
mod pins;
mod ports;
mod prefixes;

use ipnet::IpNet;
use lattice_policy::{Action, Counter, Direction, Entry, Pin, Proto, RuleId, Table};

use crate::packet::{FlowKey, ICMP, ICMPV6, TCP, UDP, address};
pub(crate) use counters::Counters;
use pins::Pins;
use ports::Ports;
use prefixes::Prefixes;

/// A compiled policy with its pins. Making one takes time in proportion to the table, using one does not: make it where
/// that disturbs nobody, and hand it to [`Filter::switch`](crate::Filter::switch).
#[derive(Debug)]
pub struct Program {
    pub(crate) generation: u32,
    egress: Side,
    ingress: Side,
    pins: Pins,
    pub(crate) counters: Counters,
}

/// What holds for flows that are opened in one direction.
#[derive(Debug)]
struct Side {
    v4: Prefixes<u32>,
    v6: Prefixes<u128>,
    ports: Ports,
}

/// What a line of the policy says, and where that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) action: Action,
    pub(crate) rule: RuleId,
    pub(crate) counter: u32,
}

impl Program {
    /// Compiles `table`, with `pins` asked where it says nothing. Events will name `generation`, which the caller chooses.
    pub fn new(table: &Table, pins: &[Pin], generation: u32) -> Self {
        let mut counters = Counters::default();
        let egress = Side::new(&table.egress, &mut counters);
        let ingress = Side::new(&table.ingress, &mut counters);
        let mut program = Self { generation, egress, ingress, pins: Pins::default(), counters };
        program.pin(pins);
        program
    }

    /// See [`Filter::pin`](crate::Filter::pin).
    pub(crate) fn pin(&mut self, pins: &[Pin]) {
        for pin in pins {
            self.pins.insert(pin, &mut self.counters);
        }
    }

    /// What the policy says of a flow opened in `direction`: the rule's network is the remote end, its ports are those of
    /// whoever is called. `None`: nothing, so it is denied.
    pub(crate) fn decide(&self, key: &FlowKey, direction: Direction, now_ns: u64) -> Option<Line> {
        let (side, port) = match direction {
            Direction::Egress => (&self.egress, key.remote_port),
            Direction::Ingress => (&self.ingress, key.local_port),
        };
        let proto = proto(key.proto)?;
        let set =
            if key.family == 4 { side.v4.find(&(key.remote as u32)) } else { side.v6.find(&key.remote) };
        set.and_then(|set| side.ports.find(set, proto, port)).or_else(|| match direction {
            Direction::Egress => self.pins.find(key, proto, port, now_ns),
            Direction::Ingress => None,
        })
    }

    /// What each rule that decided about a packet has decided about, by rule.
    pub(crate) fn counters(&self) -> Vec<(RuleId, Counter)> {
        self.counters.list()
    }
}

impl Side {
    fn new(entries: &[Entry], counters: &mut Counters) -> Self {
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        sorted.sort_by_key(|entry| entry.net);
        let mut ports = Ports::default();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for entry in sorted {
            let set = ports.add(&entry.matches, counters);
            let family = if matches!(entry.net, IpNet::V4(_)) { &mut v4 } else { &mut v6 };
            family.push((address(entry.net.network()).1, address(entry.net.broadcast()).1, set));
        }
        Self { v4: Prefixes::new(&v4), v6: Prefixes::new(&v6), ports }
    }
}

const fn proto(number: u8) -> Option<Proto> {
    match number {
        TCP => Some(Proto::Tcp),
        UDP => Some(Proto::Udp),
        ICMP | ICMPV6 => Some(Proto::Icmp),
        _ => None,
    }
}
