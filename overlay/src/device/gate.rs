//! The filter in the packet path of the device's thread, which owns it.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender},
    },
};

use lattice_filter::{Decision, Filter, Program, Refusal};
use lattice_policy::{Action, Counter, Direction, Flow, Pin, Reason, RuleId};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{
    commands::Commands,
    filter::{FilterEvents, UserFilter},
};

/// Events that wait for the owner to drain them, some 0.5 MiB.
const EVENTS: usize = 4096;

/// A filter, its clock, and the way its events take.
pub(crate) struct Gate {
    filter: Filter,
    now_ns: u64,
    events: SyncSender<Flow>,
    bell: Arc<EventFd>,
    /// Events that found no room on their way to the owner.
    untold: u64,
    lost: Arc<AtomicU64>,
}

/// That packets may not go out.
pub(crate) struct Denial {
    pub(crate) decision: Decision,
    /// What their sender is told, if it may be told anything.
    pub(crate) refusal: Option<Refusal>,
}

impl Gate {
    /// The gate and its owner's handle, which sends by `commands`.
    ///
    /// # Errors
    /// When there is no event descriptor left.
    pub(crate) fn new(filter: Filter, commands: Commands) -> io::Result<(Self, UserFilter)> {
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (events, flows) = mpsc::sync_channel(EVENTS);
        let lost = Arc::new(AtomicU64::new(0));
        let reader = FilterEvents { flows, bell: Arc::clone(&bell) };
        let events_once = Arc::new(Mutex::new(Some(reader)));
        let handle = UserFilter { commands, lost: Arc::clone(&lost), events: events_once };
        Ok((Self { filter, now_ns: 0, events, bell, untold: 0, lost }, handle))
    }

    /// Takes the time for what follows, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Whether `count` packets of the link may go out, which are together `bytes` long and cut from one, so that `packet`,
    /// the first, stands for all; if not, what their sender is told.
    pub(crate) fn egress(&mut self, packet: &[u8], count: usize, bytes: usize) -> Result<(), Denial> {
        let decision = self.filter.judge_alike(Direction::Egress, packet, count, bytes, self.now_ns);
        match decision.action {
            Action::Allow => Ok(()),
            Action::Deny => Err(Denial { decision, refusal: self.filter.refusal(packet, decision.reason) }),
        }
    }

    /// What the sender of a packet is told that may go out and cannot.
    pub(crate) fn refusal(&self, packet: &[u8]) -> Option<Refusal> {
        self.filter.refusal(packet, Reason::RuleDeny)
    }

    /// What the policy would say of a packet, which is neither counted nor told.
    pub(crate) fn peek(&self, direction: Direction, packet: &[u8]) -> Decision {
        self.filter.peek(direction, packet, self.now_ns)
    }

    /// Why a flow of ours that would begin with `first` may not; that is counted and told. One that may is neither before it begins.
    pub(crate) fn denial(&mut self, first: &[u8]) -> Option<Decision> {
        let is_denied = self.peek(Direction::Egress, first).action == Action::Deny;
        is_denied.then(|| self.filter.judge(Direction::Egress, first, self.now_ns))
    }

    /// The generation of the policy in force.
    pub(crate) fn generation(&self) -> u32 {
        self.filter.generation()
    }

    /// Whether a packet may come in to the link.
    pub(crate) fn ingress(&mut self, packet: &[u8]) -> bool {
        self.filter.judge(Direction::Ingress, packet, self.now_ns).action == Action::Allow
    }

    /// Hands the events of a batch to the owner, who is woken once for all.
    pub(crate) fn tell(&mut self) {
        if !self.filter.has_events() {
            return;
        }
        for flow in self.filter.take_events() {
            if self.events.try_send(flow).is_err() {
                self.untold += 1;
            }
        }
        self.lost.store(self.untold + self.filter.lost(), Ordering::Relaxed);
        // It fails only when the counter is full, and then the descriptor is readable anyhow.
        let _ = self.bell.write(1);
    }

    pub(crate) fn switch(&mut self, program: Program) -> Option<Program> {
        self.filter.switch(program)
    }

    pub(crate) fn pin(&mut self, pins: &[Pin]) {
        self.filter.pin(pins);
    }

    pub(crate) fn counters(&self) -> Vec<(RuleId, Counter)> {
        self.filter.counters()
    }
}
