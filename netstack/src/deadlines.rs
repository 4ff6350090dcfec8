//! Which flow's timers are due next, so that those of idle flows are not looked at.

use std::{collections::BTreeSet, time::Instant};

/// At most one time for each flow: none of its timers is due before. It may be too early, because most packets move a timer
/// to later; then the flow is looked at once for nothing, and not at every packet.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeSet<(Instant, u32)>);

impl Deadlines {
    /// Takes note of a flow's next timer; `scheduled` is what the flow remembers of it.
    pub(crate) fn schedule(&mut self, slot: u32, scheduled: &mut Option<Instant>, at: Option<Instant>) {
        let Some(at) = at else { return };
        if scheduled.is_none_or(|scheduled| at < scheduled) {
            self.remove(slot, scheduled);
            self.0.insert((at, slot));
            *scheduled = Some(at);
        }
    }

    pub(crate) fn remove(&mut self, slot: u32, scheduled: &mut Option<Instant>) {
        if let Some(scheduled) = scheduled.take() {
            self.0.remove(&(scheduled, slot));
        }
    }

    /// The next time.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes one whose time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let first = *self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.remove(&first);
        Some(first.1)
    }
}
