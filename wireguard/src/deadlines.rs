//! Which peer's timers are due next, so that those of idle peers are not looked at.

use std::{collections::BTreeSet, time::Instant};

use crate::peer::{Peer, Slot};

/// At most one time for each peer: none of its timers is due before. It may be too early, because most packets move a
/// timer to later; then the peer is looked at once for nothing, and not at every packet.
#[derive(Default)]
pub(crate) struct Deadlines(BTreeSet<(Instant, Slot)>);

impl Deadlines {
    /// Takes note of a peer's timers.
    pub(crate) fn schedule(&mut self, peer: &mut Peer) {
        let Some(at) = peer.next_timeout() else { return };
        if peer.scheduled.is_none_or(|scheduled| at < scheduled) {
            self.remove(peer);
            self.0.insert((at, peer.slot));
            peer.scheduled = Some(at);
        }
    }

    pub(crate) fn remove(&mut self, peer: &mut Peer) {
        if let Some(scheduled) = peer.scheduled.take() {
            self.0.remove(&(scheduled, peer.slot));
        }
    }

    /// The next time.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Whose time has come first. Remove it before the next call.
    pub(crate) fn due(&self, now: Instant) -> Option<Slot> {
        self.0.first().filter(|(at, _)| *at <= now).map(|(_, slot)| *slot)
    }
}
