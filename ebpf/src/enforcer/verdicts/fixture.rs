//! The harness, with what the verdict tests ask of it.

use std::net::IpAddr;

use lattice_policy::{Counter, Direction, Flow, Pin, Reason, RuleId, Table};
use lattice_verdicts::Judge;

use crate::{
    Events,
    harness::{Harness, Outcome},
};

const ETHERNET: usize = 14;
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(super) const AGENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub(super) struct Fixture {
    pub(super) harness: Harness,
    pub(super) events: Events,
}

impl Fixture {
    pub(super) fn of(mut harness: Harness) -> Self {
        Self { events: harness.enforcer.events().unwrap(), harness }
    }

    /// The fixture of the next process.
    pub(super) fn reload(self, own: &[IpAddr]) -> Self {
        let Self { harness, events } = self;
        drop(events);
        Self::of(harness.reload(own).unwrap())
    }

    pub(super) fn run(&mut self, direction: Direction, packet: &[u8]) -> Outcome {
        self.harness.run(&ethernet(packet), direction, 0).unwrap()
    }

    /// Runs an Ethernet frame, and says which reason counted it and what became of it.
    pub(super) fn judge_frame(&mut self, direction: Direction, frame: &[u8]) -> (Reason, Outcome) {
        let before = self.harness.enforcer.stats().unwrap();
        let outcome = self.harness.run(frame, direction, 0).unwrap();
        let after = self.harness.enforcer.stats().unwrap();
        let counted: Vec<Reason> =
            before.iter().zip(&after).filter(|(b, a)| b.1 != a.1).map(|(_, a)| a.0).collect();
        let [reason] = counted[..] else { panic!("counted as {counted:?}") };
        let passes = matches!(reason, Reason::RuleAllow | Reason::Established | Reason::LinkControl);
        assert_eq!(passes, outcome == Outcome::Pass, "{reason:?}: {outcome:?}");
        let is_answer = matches!(outcome, Outcome::Answer(_));
        assert!(direction == Direction::Egress || !is_answer, "a stranger learns nothing: {outcome:?}");
        (reason, outcome)
    }

    /// The reason of an Ethernet frame that leaves.
    pub(super) fn egress_frame(&mut self, frame: &[u8]) -> Reason {
        self.judge_frame(Direction::Egress, frame).0
    }
}

impl Judge for Fixture {
    /// `BPF_PROG_TEST_RUN` runs on the loopback.
    const LINK: u32 = 1;

    fn with_own(own: &[IpAddr]) -> Self {
        Self::of(Harness::new(own).unwrap())
    }

    fn apply_with(&mut self, table: &Table, pins: &[Pin], generation: u32) {
        self.harness.enforcer.apply(table, pins, generation).unwrap();
    }

    fn pin(&mut self, pins: &[Pin]) {
        self.harness.enforcer.pin(pins).unwrap();
    }

    fn judge(&mut self, direction: Direction, packet: &[u8]) -> Reason {
        self.judge_frame(direction, &ethernet(packet)).0
    }

    fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        match self.judge_frame(Direction::Egress, &ethernet(packet)).1 {
            Outcome::Answer(mut answer) => {
                let ip = answer.split_off(ETHERNET);
                assert_eq!(answer, ethernet_header(AGENT_MAC, PEER_MAC, type_of(packet)), "it goes back");
                Some(ip)
            }
            Outcome::Drop => None,
            Outcome::Pass => panic!("not denied: {packet:x?}"),
        }
    }

    fn told(&mut self) -> Vec<Flow> {
        let mut flows = Vec::new();
        while self.events.drain(&mut |flow| flows.push(flow)) == Events::BATCH {}
        flows
    }

    fn counters(&self) -> Vec<(RuleId, Counter)> {
        self.harness.enforcer.counters().unwrap()
    }
}

fn ethernet_header(to: [u8; 6], from: [u8; 6], ether_type: u16) -> Vec<u8> {
    [&to[..], &from, &ether_type.to_be_bytes()].concat()
}

/// A frame from the agent's MAC address, padded to what `BPF_PROG_TEST_RUN` demands.
pub(super) fn frame(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&ethernet_header(PEER_MAC, AGENT_MAC, ether_type), payload].concat();
    frame.resize(frame.len().max(ETHERNET + 40), 0);
    frame
}

/// The frame of an IP packet.
pub(super) fn ethernet(packet: &[u8]) -> Vec<u8> {
    frame(type_of(packet), packet)
}

fn type_of(packet: &[u8]) -> u16 {
    if packet.first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { 0x0800 }
}

/// An ARP request of the agent's.
pub(super) fn arp(sender: [u8; 4]) -> Vec<u8> {
    let addresses = [&AGENT_MAC[..], &sender, &[0; 6], &[10, 42, 0, 1]].concat();
    frame(0x0806, &[&[0, 1, 8, 0, 6, 4, 0, 1], &addresses[..]].concat())
}
