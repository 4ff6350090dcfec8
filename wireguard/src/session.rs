//! Sessions: the keys that a handshake made, and the counters under which they are used (sections 5.4.5 and 5.4.6 of the
//! paper).
//!
//! A key never meets a counter twice. So a session cannot be cloned, written down or read back; it lives and ends in one
//! process. What a copy of the whole process must do is told at [`Interface::forget_sessions`](crate::Interface::forget_sessions).

use std::time::Instant;

use crate::{
    handshake::Keys,
    limits::{REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES},
    message::{DATA_HEADER_LEN, write_data_header},
    replay::Replay,
    symmetric::{NotAuthentic, open, seal},
};

/// One session.
pub(crate) struct Session {
    /// The index that we chose: the peer writes it in each message.
    pub(crate) local_index: u32,
    remote_index: u32,
    keys: Keys,
    /// The counter of the next message that we send.
    next_counter: u64,
    replay: Replay,
    pub(crate) since: Instant,
    pub(crate) is_initiator: bool,
}

impl Session {
    pub(crate) fn new(
        local_index: u32,
        remote_index: u32,
        keys: Keys,
        is_initiator: bool,
        now: Instant,
    ) -> Self {
        Self {
            local_index,
            remote_index,
            keys,
            next_counter: 0,
            replay: Replay::new(),
            since: now,
            is_initiator,
        }
    }

    /// Whether the session may be used to send.
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        !self.is_over(now) && self.next_counter < REJECT_AFTER_MESSAGES
    }

    /// Whether nothing was sent yet.
    pub(crate) fn is_unused(&self) -> bool {
        self.next_counter == 0
    }

    /// Whether so many messages were sent that another session is due.
    pub(crate) fn is_worn(&self) -> bool {
        self.next_counter >= REKEY_AFTER_MESSAGES
    }

    /// The next counter, once. `None` when there is none left, or the session is too old.
    pub(crate) fn take_counter(&mut self, now: Instant) -> Option<Counter> {
        if !self.is_usable(now) {
            return None;
        }
        let counter = self.next_counter;
        self.next_counter += 1;
        Some(Counter(counter))
    }

    /// Makes a data message of `room`: header, packet with its padding, room for the tag. The packet is in its place.
    pub(crate) fn seal(&self, counter: Counter, room: &mut [u8]) {
        write_data_header(room, self.remote_index, counter.0);
        let (text, tag) = room[DATA_HEADER_LEN..].split_last_chunk_mut::<16>().expect("the room has a tag");
        *tag = seal(&self.keys.send, counter.0, &[], text);
    }

    /// Decrypts a data message in place; returns the padded packet.
    ///
    /// # Errors
    /// When it is not authentic, a replay, or comes after the end of the session.
    pub(crate) fn open<'a>(
        &mut self,
        counter: u64,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Result<&'a mut [u8], NotAuthentic> {
        // Before the expensive part, what is said anyway to be no use.
        if self.is_over(now) || counter >= REJECT_AFTER_MESSAGES || !self.replay.is_new(counter) {
            return Err(NotAuthentic);
        }
        let packet = open(&self.keys.receive, counter, &[], &mut datagram[DATA_HEADER_LEN..])?;
        self.replay.accept(counter);
        Ok(packet)
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= REJECT_AFTER_TIME
    }
}

/// A counter that was not used yet. It goes with one message and cannot be copied.
pub(crate) struct Counter(u64);

/// The sessions with one peer: at most three.
#[derive(Default)]
pub(crate) struct Sessions {
    /// What we send with.
    current: Option<Box<Session>>,
    /// For what was still on its way when `current` came.
    previous: Option<Box<Session>>,
    /// One that we answered; the initiator's first message will show that it has our answer. Before, nothing is sent with
    /// it (section 5.1: key confirmation).
    next: Option<Box<Session>>,
}

impl Sessions {
    /// What to send with.
    pub(crate) fn current(&mut self) -> Option<&mut Session> {
        self.current.as_deref_mut()
    }

    /// The session with an index of ours.
    pub(crate) fn find(&mut self, local_index: u32) -> Option<&mut Session> {
        let all = [&mut self.current, &mut self.previous, &mut self.next];
        all.into_iter().flatten().map(Box::as_mut).find(|session| session.local_index == local_index)
    }

    /// Whether there is a session to send with.
    pub(crate) fn is_connected(&self, now: Instant) -> bool {
        self.current.as_ref().is_some_and(|session| session.is_usable(now))
    }

    /// A session that we began, and that was answered: it is confirmed by that.
    pub(crate) fn add_initiated(&mut self, session: Session) -> Freed {
        let before = self.current.replace(Box::new(session));
        // The peer may have begun one as well, and sends with that.
        let (previous, dropped) = match self.next.take() {
            Some(next) => (Some(next), before),
            None => (before, None),
        };
        let oldest = std::mem::replace(&mut self.previous, previous);
        [dropped, oldest, None].map(local_index)
    }

    /// A session that the peer began, and that we answered.
    pub(crate) fn add_answered(&mut self, session: Session) -> Freed {
        let unconfirmed = self.next.replace(Box::new(session));
        [unconfirmed, self.previous.take(), None].map(local_index)
    }

    /// Takes note of an authentic message of a session. `Some` when that confirms it: it is the one to send with now.
    pub(crate) fn confirm(&mut self, confirmed: u32) -> Option<Freed> {
        let confirmed = self.next.take_if(|next| next.local_index == confirmed)?;
        let before = self.current.replace(confirmed);
        let oldest = std::mem::replace(&mut self.previous, before);
        Some([oldest, None, None].map(local_index))
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) -> Freed {
        let Self { current, previous, next } = std::mem::take(self);
        [current, previous, next].map(local_index)
    }
}

/// Indices that no session has any more.
pub(crate) type Freed = [Option<u32>; 3];

fn local_index(session: Option<Box<Session>>) -> Option<u32> {
    session.map(|session| session.local_index)
}

#[cfg(test)]
mod tests;
