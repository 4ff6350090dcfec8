//! The policy of a user-space device, seen from its owner: what [`UserFilter`] asks is done by the device's thread between
//! two batches of packets, so the packets wait for no lock and the owner not for the packets.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
};

use lattice_filter::Program;
use lattice_policy::{Counter, Flow, Pin, RuleId, Table};
use nix::sys::eventfd::EventFd;

use super::{
    DeviceError,
    commands::{Command, Commands},
};
use crate::stack::first::First;

/// The filter of a device that judges its own packets; any number of handles, from any thread.
///
/// Packets that the link sends are judged before they are encrypted, decrypted ones before the link gets them. Until the
/// first policy is applied nothing passes.
#[derive(Debug, Clone)]
pub struct UserFilter {
    pub(crate) commands: Commands,
    pub(crate) lost: Arc<AtomicU64>,
    pub(crate) events: Arc<Mutex<Option<FilterEvents>>>,
}

impl UserFilter {
    /// Puts `table` in force at once and as a whole, with `pins` asked where it says nothing: packets that are read after
    /// the return are judged by it, live flows anew. `generation` is what events will say; the caller chooses it.
    ///
    /// # Errors
    /// When the device is gone, and with it the link.
    pub fn apply(&self, table: &Table, pins: &[Pin], generation: u32) -> Result<(), DeviceError> {
        // Compiled here, and the old one freed here: neither is to delay packets.
        let program = Box::new(Program::new(table, pins, generation));
        self.commands.ask(|old| Command::Apply(program, old)).map(drop)
    }

    /// Adds pins to the policy in force, each in place of the one of that address. Without a policy there is nothing to
    /// add to.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn pin(&self, pins: &[Pin]) -> Result<(), DeviceError> {
        self.commands.ask(|done| Command::Pin(pins.to_vec(), done))
    }

    /// What each rule of the policy in force has decided about, in the order of their ids, without those that nothing came
    /// to. [`RuleId::NONE`] counts what no rule names.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn counters(&self) -> Result<Vec<(RuleId, Counter)>, DeviceError> {
        self.commands.ask(Command::Counters)
    }

    /// Which flows of the sandbox that would begin with `firsts` the policy in force denies: that is counted and told.
    ///
    /// # Errors
    /// When the device is gone.
    pub(crate) fn deny(&self, firsts: Vec<First>) -> Result<Vec<bool>, DeviceError> {
        self.commands.ask(|reply| Command::Deny(firsts, reply))
    }

    /// How many verdicts were enforced but not told, because too many waited to be drained.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Takes the reading end of the events. Those from before it was taken are kept, as far as there is room.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn events(&self) -> Result<FilterEvents, DeviceError> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.take().ok_or_else(|| DeviceError::EventsTaken(self.commands.name().into()))
    }
}

/// The reading end of a filter's events.
///
/// Its descriptor becomes readable when a verdict arrives. What waits when the device goes can still be drained.
#[derive(Debug)]
pub struct FilterEvents {
    pub(crate) flows: Receiver<Flow>,
    pub(crate) bell: Arc<EventFd>,
}

impl FilterEvents {
    /// How many verdicts one [`drain`](Self::drain) takes at most.
    pub const BATCH: usize = 1024;

    /// Hands at most [`BATCH`](Self::BATCH) waiting verdicts to `f`, oldest first, and says how many it took. A full batch
    /// means that more may wait: drain again before waiting on the descriptor.
    pub fn drain(&mut self, f: &mut dyn FnMut(Flow)) -> usize {
        // Before the first is taken: one that comes meanwhile rings anew. That it has not rung is no error.
        let _ = self.bell.read();
        self.flows.try_iter().take(Self::BATCH).map(f).count()
    }
}

impl AsFd for FilterEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
