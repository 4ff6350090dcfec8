//! The harness, with what the verdict tests ask of it.

use lattice_policy::{Action, Direction, Entry, Match, Pin, PortRange, Proto, Reason, RuleId, Table};

use super::packet::{OWN4, OWN6};
use crate::{
    Events, Flow,
    harness::{Harness, Outcome},
};

pub(super) struct Fixture {
    pub(super) harness: Harness,
    pub(super) events: Events,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::of(Harness::new(&[OWN4.into(), OWN6.parse().unwrap()]).unwrap())
    }

    pub(super) fn of(mut harness: Harness) -> Self {
        Self { events: harness.enforcer.events().unwrap(), harness }
    }

    pub(super) fn with(table: &Table) -> Self {
        let mut fixture = Self::new();
        fixture.apply(table, 1);
        fixture
    }

    pub(super) fn apply(&mut self, table: &Table, generation: u32) {
        self.apply_with(table, &[], generation);
    }

    pub(super) fn apply_with(&mut self, table: &Table, pins: &[Pin], generation: u32) {
        self.harness.enforcer.apply(table, pins, generation).unwrap();
    }

    pub(super) fn run(&mut self, direction: Direction, frame: &[u8], mark: u32) -> Outcome {
        self.harness.run(frame, direction, mark).unwrap()
    }

    pub(super) fn told(&mut self) -> Vec<Flow> {
        let mut flows = Vec::new();
        self.events.drain(&mut |flow| flows.push(flow));
        flows
    }

    /// Runs a frame and says which reason counted it.
    pub(super) fn reason(&mut self, direction: Direction, frame: &[u8]) -> Reason {
        let before = self.harness.enforcer.stats().unwrap();
        let outcome = self.run(direction, frame, 0);
        let after = self.harness.enforcer.stats().unwrap();
        let counted: Vec<Reason> =
            before.iter().zip(&after).filter(|(b, a)| b.1 != a.1).map(|(_, a)| a.0).collect();
        let [reason] = counted[..] else { panic!("counted as {counted:?}") };
        let passes = matches!(reason, Reason::RuleAllow | Reason::Established | Reason::LinkControl);
        assert_eq!(passes, outcome == Outcome::Pass, "{reason:?}: {outcome:?}");
        reason
    }

    pub(super) fn egress(&mut self, frame: &[u8]) -> Reason {
        self.reason(Direction::Egress, frame)
    }

    pub(super) fn ingress(&mut self, frame: &[u8]) -> Reason {
        self.reason(Direction::Ingress, frame)
    }

    pub(super) fn answer(&mut self, frame: &[u8]) -> Vec<u8> {
        match self.run(Direction::Egress, frame, 0) {
            Outcome::Answer(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn line(proto: Proto, ports: Option<(u16, u16)>, action: Action, rule: u32) -> Match {
    Match { proto, ports: ports.map(|(lo, hi)| PortRange { lo, hi }), action, rule: RuleId(rule) }
}

pub(super) fn entry(net: &str, matches: &[Match]) -> Entry {
    Entry { net: net.parse().unwrap(), matches: matches.to_vec() }
}
