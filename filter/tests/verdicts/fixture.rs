//! A filter with a clock.

use std::net::IpAddr;

use lattice_filter::{Decision, Filter};
use lattice_policy::{Action, Counter, Direction, Flow, Pin, Reason, RuleId, Table};
use lattice_verdicts::Judge;

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) struct Fixture {
    pub(crate) filter: Filter,
    pub(crate) now_ns: u64,
}

impl Fixture {
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
}

impl Judge for Fixture {
    const LINK: u32 = 0;

    fn with_own(own: &[IpAddr]) -> Self {
        Self { filter: Filter::new(own.to_vec()), now_ns: 1000 * SECOND }
    }

    fn apply_with(&mut self, table: &Table, pins: &[Pin], generation: u32) {
        self.filter.apply(table, pins, generation);
    }

    fn pin(&mut self, pins: &[Pin]) {
        self.filter.pin(pins);
    }

    fn judge(&mut self, direction: Direction, packet: &[u8]) -> Reason {
        self.decide(direction, packet).reason
    }

    fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let Decision { action, reason, .. } = self.decide(Direction::Egress, packet);
        assert_eq!(action, Action::Deny, "{packet:x?}");
        self.filter.refusal(packet, reason).map(|answer| answer.to_vec())
    }

    fn told(&mut self) -> Vec<Flow> {
        self.filter.take_events().collect()
    }

    fn counters(&self) -> Vec<(RuleId, Counter)> {
        self.filter.counters()
    }
}
