//! A filter with a clock, and the tables of the tests.

use lattice_filter::{Decision, Filter, Refusal};
use lattice_policy::{Action, Direction, Entry, Flow, Match, Pin, PortRange, Proto, Reason, RuleId, Table};

use crate::packet::{OWN4, OWN6};

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) struct Fixture {
    pub(crate) filter: Filter,
    pub(crate) now_ns: u64,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let filter = Filter::new(vec![OWN4.into(), OWN6.parse().unwrap()]);
        Self { filter, now_ns: 1000 * SECOND }
    }

    pub(crate) fn with(table: &Table) -> Self {
        let mut fixture = Self::new();
        fixture.apply(table, 1);
        fixture
    }

    pub(crate) fn apply(&mut self, table: &Table, generation: u32) {
        self.filter.apply(table, &[], generation);
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND;
    }

    pub(crate) fn decide(&mut self, direction: Direction, packet: &[u8]) -> Decision {
        let peeked = self.filter.peek(direction, packet, self.now_ns);
        let decision = self.filter.judge(direction, packet, self.now_ns);
        assert_eq!(peeked, decision, "of {packet:?}");
        let passes = matches!(decision.reason, Reason::RuleAllow | Reason::Established);
        assert_eq!(passes, decision.action == Action::Allow, "{decision:?}");
        decision
    }

    pub(crate) fn egress(&mut self, packet: &[u8]) -> Reason {
        self.decide(Direction::Egress, packet).reason
    }

    pub(crate) fn ingress(&mut self, packet: &[u8]) -> Reason {
        self.decide(Direction::Ingress, packet).reason
    }

    /// What the sender of an egress packet is told; none if it passes.
    pub(crate) fn answer(&mut self, packet: &[u8]) -> Option<Refusal> {
        let reason = self.egress(packet);
        self.filter.refusal(packet, reason)
    }

    pub(crate) fn told(&mut self) -> Vec<Flow> {
        self.filter.take_events().collect()
    }
}

pub(crate) fn line(proto: Proto, ports: Option<(u16, u16)>, action: Action, rule: u32) -> Match {
    Match { proto, ports: ports.map(|(lo, hi)| PortRange { lo, hi }), action, rule: RuleId(rule) }
}

pub(crate) fn entry(net: &str, matches: &[Match]) -> Entry {
    Entry { net: net.parse().unwrap(), matches: matches.to_vec() }
}

pub(crate) fn pin(address: &str, matches: &[Match], until_ns: u64) -> Pin {
    Pin { address: address.parse().unwrap(), matches: matches.to_vec(), until_ns }
}

/// The tool on TCP 8080, UDP 53 and ping, except one address; many ports of another; a peer that may call port 9000.
pub(crate) fn table() -> Table {
    let open = [
        line(Proto::Tcp, Some((8080, 8080)), Action::Allow, 1),
        line(Proto::Udp, Some((53, 53)), Action::Allow, 2),
        line(Proto::Icmp, None, Action::Allow, 3),
    ];
    let many: Vec<_> =
        (0..10).map(|n| line(Proto::Tcp, Some((n * 1000, n * 1000 + 9)), Action::Allow, 20)).collect();
    Table {
        egress: vec![
            entry("192.0.2.0/24", &open),
            entry("192.0.2.66/32", &[line(Proto::Any, None, Action::Deny, 4)]),
            entry("203.0.113.0/24", &many),
            entry("2001:db8::/32", &open),
            entry("::/0", &[line(Proto::Tcp, Some((443, 443)), Action::Allow, 5)]),
        ],
        ingress: vec![entry("192.0.2.7/32", &[line(Proto::Tcp, Some((9000, 9000)), Action::Allow, 9)])],
    }
}
