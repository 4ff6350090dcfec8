//! The handshakes that we began with a peer and that may still be answered: the newest, and the one before it.
//!
//! Only the answer to the newest makes a session. A responder keeps one session that nobody has confirmed, the one of the last initiation
//! that it took (section 5.1 of the paper, and what all implementations do). Where the answer to an older initiation comes after a newer
//! one was sent, the newer one is ahead of whatever we would send now, so the session that this answer stands for is gone before our
//! first message under it can arrive. Were it taken, all that waits would be sent to nobody.
//!
//! What a late answer does tell is that the peer is there, where, and how far away: the answer to the newest initiation is only a matter
//! of time. So no other initiation may replace it, nor one after it, before it had that time. Without this, a round trip that is longer than what lies
//! between two initiations would let each of them be overtaken by the next.

use std::time::{Duration, Instant};

use crate::{
    handshake::{Identity, Keys, initiator::Initiation},
    limits::REKEY_TIMEOUT,
    message::RESPONSE_LEN,
    symmetric::NotAuthentic,
};

/// The handshakes that were begun and may still be answered. Each has an index of its own.
#[derive(Default)]
pub(crate) struct Pending {
    newest: Option<Box<Begun>>,
    /// Until it is answered, once, or another one takes its place.
    former: Option<Box<Begun>>,
    /// For how long each initiation waits for its answer at least, by what late answers have told. Zero when none came.
    patience: Duration,
}

struct Begun {
    initiation: Initiation,
    at: Instant,
}

/// What an authentic answer is worth.
pub(crate) enum Answer {
    /// A session: the peer's index and the keys. Nothing is pending any more but the older handshake.
    Session(u32, Keys),
    /// It came too late; [`Pending::until`] says how long to wait for the next.
    Late,
}

impl Pending {
    /// Takes a new initiation. Returns the index that is free now.
    pub(crate) fn begin(&mut self, initiation: Initiation, now: Instant) -> Option<u32> {
        let former = self.newest.replace(Box::new(Begun { initiation, at: now }));
        index(std::mem::replace(&mut self.former, former))
    }

    /// Whether an answer is waited for.
    pub(crate) fn is_some(&self) -> bool {
        self.newest.is_some()
    }

    /// Takes an answer. Each initiation is answered once, so that nobody gains by repeating one.
    ///
    /// # Errors
    /// When the answer is not the peer's, or to none of these.
    pub(crate) fn answer(
        &mut self,
        receiver: u32,
        identity: &Identity,
        message: &[u8; RESPONSE_LEN],
        now: Instant,
    ) -> Result<Answer, NotAuthentic> {
        let is_asked = |begun: &&Begun| begun.initiation.index == receiver;
        if let Some(newest) = self.newest.as_deref().filter(is_asked) {
            let (remote_index, keys) = newest.initiation.finish(identity, message)?;
            self.newest = None;
            return Ok(Answer::Session(remote_index, keys));
        }
        let Some(former) = self.former.as_deref().filter(is_asked) else {
            return Err(NotAuthentic);
        };
        former.initiation.finish(identity, message)?;
        let round_trip = now.saturating_duration_since(former.at);
        // Half as long again, for what differs from one to the next. No longer than WireGuard waits anyway.
        self.patience = self.patience.max(round_trip + round_trip / 2).min(REKEY_TIMEOUT);
        self.former = None;
        Ok(Answer::Late)
    }

    /// Before when no other initiation is to be sent; `None` when no late answer came.
    pub(crate) fn until(&self) -> Option<Instant> {
        let newest = self.newest.as_ref().filter(|_| !self.patience.is_zero())?;
        Some(newest.at + self.patience)
    }

    /// The peer is asked by another path now: what the former one took says nothing about it.
    pub(crate) fn by_another_path(&mut self) {
        self.patience = Duration::ZERO;
    }

    /// Waits for no answer any more. Returns the indices that are free now.
    pub(crate) fn clear(&mut self) -> [Option<u32>; 2] {
        let Self { newest, former, .. } = std::mem::take(self);
        [newest, former].map(index)
    }
}

fn index(begun: Option<Box<Begun>>) -> Option<u32> {
    begun.map(|begun| begun.initiation.index)
}
