//! The filter of one sandbox: its addresses, the policy in force, and what it knows of flows.

use std::{fmt, net::IpAddr};

use lattice_policy::{Action, Counter, Direction, Flow, Pin, Reason, RuleId, Table};

use crate::{
    Program, Refusal,
    flows::{Flows, Force, Outcome},
    journal::Journal,
    packet::{Fragment, Packet, address},
    program::{Counters, Line},
    refusal,
};

/// What happens to a packet, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether it passes.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The rule that decided, or that let the packet's flow in; [`RuleId::NONE`] when there is none.
    pub rule: RuleId,
}

/// Judges the packets of one sandbox. Until a policy is applied, it denies everything.
pub struct Filter {
    /// By family and number.
    own: Vec<(u8, u128)>,
    program: Option<Program>,
    /// Counts policies, and tells flows that this one has let in from older ones.
    epoch: u32,
    flows: Flows,
    journal: Journal,
}

/// A decision and where it is counted.
struct Verdict {
    reason: Reason,
    rule: RuleId,
    counter: Option<u32>,
}

impl Filter {
    /// For a sandbox with the addresses `own`: the only ones it may send from, and the only ones that others reach. Each
    /// packet is compared with all of them, so they should be few.
    pub fn new(own: Vec<IpAddr>) -> Self {
        let own = own.into_iter().map(address).collect();
        Self { own, program: None, epoch: 0, flows: Flows::new(), journal: Journal::new() }
    }

    /// Puts `table` in force, with `pins` asked where it says nothing. Live flows are judged anew at their next packet.
    /// `generation` is what events will say; the caller chooses it. Counters begin anew.
    pub fn apply(&mut self, table: &Table, pins: &[Pin], generation: u32) {
        self.switch(Program::new(table, pins, generation));
    }

    /// Puts a policy in force that was compiled elsewhere, and gives back the one of before, in constant time.
    pub fn switch(&mut self, program: Program) -> Option<Program> {
        self.epoch = self.epoch.wrapping_add(1);
        self.program.replace(program)
    }

    /// Adds pins to the policy in force, each in place of the one of that address. Without a policy there is nothing to
    /// add to. At most [`Pin::MAX`] are kept; those that end first give way.
    pub fn pin(&mut self, pins: &[Pin]) {
        if let Some(program) = &mut self.program {
            program.pin(pins);
        }
    }

    /// Decides about `packet`, which begins with its IP header. `now_ns` is the time in nanoseconds of `CLOCK_BOOTTIME`.
    pub fn judge(&mut self, direction: Direction, packet: &[u8], now_ns: u64) -> Decision {
        self.judge_alike(direction, packet, 1, packet.len(), now_ns)
    }

    /// Decides about `count` packets at once, which are `bytes` long together and differ from `packet`, the first of them, in
    /// nothing that is looked at: those into which one large packet is cut. They are counted each, and told as one.
    pub fn judge_alike(
        &mut self,
        direction: Direction,
        packet: &[u8],
        count: usize,
        bytes: usize,
        now_ns: u64,
    ) -> Decision {
        let (packet, read) = Packet::parse(direction, packet);
        let verdict = match read {
            Ok(()) => self.verdict(&packet, now_ns),
            Err(reason) => Verdict::without_rule(reason),
        };
        let generation = self.program.as_mut().map_or(0, |program| {
            if let Some(counter) = verdict.counter {
                program.counters.add(counter, count, bytes);
            }
            program.generation
        });
        let decision = verdict.decision();
        self.journal.tell(&packet, decision, generation, bytes, now_ns);
        decision
    }

    /// What [`Self::judge`] would say of `packet`: nothing is counted, told or remembered.
    pub fn peek(&self, direction: Direction, packet: &[u8], now_ns: u64) -> Decision {
        let (packet, read) = Packet::parse(direction, packet);
        let turned_away = read.err().or_else(|| self.turned_away(&packet));
        let verdict = match (turned_away, &self.program) {
            (Some(reason), _) => Verdict::without_rule(reason),
            (None, None) => Verdict::without_rule(Reason::NoPolicy),
            (None, Some(program)) => self.peek_verdict(&packet, program, now_ns),
        };
        verdict.decision()
    }

    fn peek_verdict(&self, packet: &Packet<'_>, program: &Program, now_ns: u64) -> Verdict {
        let force = Force { program, epoch: self.epoch, now_ns };
        let line = match packet.fragment {
            Fragment::Later => self.flows.first_fragment(force, packet),
            Fragment::Whole | Fragment::First => self.flows.peek_related(force, packet),
        };
        match line {
            Some(line) => Verdict::of(Reason::Established, line),
            None if packet.fragment == Fragment::Later => Verdict::without_rule(Reason::Fragment),
            None => Verdict::from(self.flows.peek(force, packet)),
        }
    }

    /// The generation of the policy in force; 0 before there is one.
    pub fn generation(&self) -> u32 {
        self.program.as_ref().map_or(0, |program| program.generation)
    }

    /// The answer to an egress `packet` that was denied for `reason`: what a closed door would say, from the address that
    /// the packet was for. `None` where no answer may be given.
    pub fn refusal(&self, packet: &[u8], reason: Reason) -> Option<Refusal> {
        refusal::refusal(packet, reason)
    }

    /// Takes what there is to tell, oldest first. What the iterator is not asked for is gone.
    pub fn take_events(&mut self) -> impl Iterator<Item = Flow> {
        self.journal.take()
    }

    /// Whether there is something to tell.
    pub fn has_events(&self) -> bool {
        !self.journal.is_empty()
    }

    /// How many verdicts were enforced but not told, because too many waited to be taken.
    pub fn lost(&self) -> u64 {
        self.journal.lost()
    }

    /// What each rule of the policy in force has decided about, in the order of their ids, without those that nothing came
    /// to: packets it denied or allowed, and later ones of flows that it let in. [`RuleId::NONE`] counts what no rule names.
    pub fn counters(&self) -> Vec<(RuleId, Counter)> {
        self.program.as_ref().map(Program::counters).unwrap_or_default()
    }

    fn verdict(&mut self, packet: &Packet<'_>, now_ns: u64) -> Verdict {
        if let Some(reason) = self.turned_away(packet) {
            return Verdict::without_rule(reason);
        }
        let Some(program) = &self.program else { return Verdict::without_rule(Reason::NoPolicy) };
        let force = Force { program, epoch: self.epoch, now_ns };
        if packet.fragment == Fragment::Later {
            let first = self.flows.first_fragment(force, packet);
            return first.map_or(Verdict::without_rule(Reason::Fragment), |line| {
                Verdict::of(Reason::Established, line)
            });
        }
        if let Some(line) = self.flows.related(force, packet) {
            return Verdict::of(Reason::Established, line);
        }
        let outcome = self.flows.judge(force, packet);
        if packet.fragment == Fragment::First
            && let Some(line) = outcome.allowed()
        {
            self.flows.remember_fragment(force, packet, line);
        }
        Verdict::from(outcome)
    }

    /// Why a packet cannot pass whatever the policy says.
    fn turned_away(&self, packet: &Packet<'_>) -> Option<Reason> {
        let key = &packet.key;
        if is_group(key.family, key.local) || is_group(key.family, key.remote) {
            return Some(Reason::Multicast);
        }
        let is_egress = packet.direction == Direction::Egress;
        if !self.is_own(key.family, key.local) {
            return Some(if is_egress { Reason::Spoofed } else { Reason::DefaultDeny });
        }
        (!is_egress && self.is_own(key.family, key.remote)).then_some(Reason::Spoofed)
    }

    fn is_own(&self, family: u8, number: u128) -> bool {
        self.own.contains(&(family, number))
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.program.as_ref().map(|program| program.generation);
        f.debug_struct("Filter").field("generation", &generation).finish_non_exhaustive()
    }
}

// === impl Verdict ===

impl Verdict {
    fn without_rule(reason: Reason) -> Self {
        let counter = (reason == Reason::DefaultDeny).then_some(Counters::NONE);
        Self { reason, rule: RuleId::NONE, counter }
    }

    fn of(reason: Reason, line: Line) -> Self {
        Self { reason, rule: line.rule, counter: Some(line.counter) }
    }

    fn decision(&self) -> Decision {
        let action = match self.reason {
            Reason::RuleAllow | Reason::Established => Action::Allow,
            _ => Action::Deny,
        };
        Decision { action, reason: self.reason, rule: self.rule }
    }
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Established(line) => Self::of(Reason::Established, line),
            Outcome::Decided(line) if line.action == Action::Allow => Self::of(Reason::RuleAllow, line),
            Outcome::Decided(line) => Self::of(Reason::RuleDeny, line),
            Outcome::Unnamed => Self::without_rule(Reason::DefaultDeny),
        }
    }
}

/// 224/4, and 240/4 up to the broadcast address; ff00::/8.
const fn is_group(family: u8, number: u128) -> bool {
    if family == 6 { number >> 120 == 0xff } else { number >= 0xe000_0000 }
}
