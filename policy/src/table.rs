//! The flat form of a policy, as enforcers load it.

pub(crate) mod longest;
mod ports;

use ipnet::IpNet;

use crate::{Action, Direction, Packet, Pin, PortRange, Proto, RuleId, Verdict, pin};
pub use ports::{icmp_line, port_intervals};

/// A compiled policy. The default is deny.
///
/// Both lists are sorted by address family, address and prefix length, so that a prefix comes right before what
/// lies in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Keyed by destination.
    pub egress: Vec<Entry>,
    /// Keyed by source.
    pub ingress: Vec<Entry>,
}

/// What holds for addresses whose longest matching prefix is `net`. Nothing needs to be looked up in shorter
/// prefixes: `matches` already contains what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The prefix, unique within its list.
    pub net: IpNet,
    /// In order; the first that fits decides. None fits: deny.
    pub matches: Vec<Match>,
}

/// One line of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Match {
    /// Which protocol.
    pub proto: Proto,
    /// Which ports; `None` is every port, and the only form that fits ICMP and later fragments.
    pub ports: Option<PortRange>,
    /// What happens.
    pub action: Action,
    /// Which rule says so.
    pub rule: RuleId,
}

impl Table {
    /// Decides about `packet` the way an enforcer does: the entry with the longest prefix, and in it the first match.
    pub fn lookup(&self, packet: &Packet) -> Verdict {
        let packet = packet.canonical();
        let Some(proto) = packet.proto() else { return Verdict::PROTOCOL };
        let entries = match packet.direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        };
        longest::prefix(entries, |entry| entry.net, packet.remote)
            .and_then(|entry| entry.matches.iter().find(|line| line.fits(proto, packet.port)))
            .map_or(Verdict::DEFAULT, |line| Verdict::of(line.action, line.rule))
    }

    /// Decides about `packet` with the pins that hold now: [`Table::lookup`], and where nothing fits, they.
    pub fn lookup_pinned(&self, packet: &Packet, pins: &[Pin]) -> Verdict {
        match self.lookup(packet) {
            Verdict::DEFAULT => pin::lookup(packet, pins),
            verdict => verdict,
        }
    }
}

impl Match {
    /// Whether it is about packets of `proto`, which must be one that a packet can have.
    pub fn names(&self, proto: Proto) -> bool {
        self.proto == Proto::Any || self.proto == proto
    }

    /// Whether it fits packets of `proto` to `port`. ICMP and later fragments have none.
    pub fn fits(&self, proto: Proto, port: Option<u16>) -> bool {
        let ports = match (self.ports, port) {
            (None, _) => true,
            (Some(range), Some(port)) => proto != Proto::Icmp && range.contains(port),
            (Some(_), None) => false,
        };
        ports && self.names(proto)
    }
}
