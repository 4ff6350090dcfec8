//! Connections that have ended, as long as packets of theirs may still come (TIME-WAIT; RFC 9293, 3.6.1): the last
//! acknowledgement is given again, and what is late is not taken for a new connection's. Without buffers, and of bounded
//! number: the oldest makes room.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    tcp::{ACK, Answer, RST, SYN, Segment, before},
    tuple::Tuple,
};

/// The longest that a packet is taken to live in a network (RFC 9293, 3.4.2), which is also longer than a peer waits until it
/// sends again what we have acknowledged and it has not heard of.
const LASTS: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
struct Ended {
    /// Our next sequence number, and the peer's.
    next: u32,
    expected: u32,
    until: Instant,
}

/// What a segment of an ended connection is.
#[derive(Debug)]
pub(crate) enum Late {
    /// Of no connection that has ended.
    Unknown,
    /// Of one that has: nothing is to be said, or this.
    Ended(Option<Answer>),
}

/// The ended connections.
#[derive(Debug)]
pub(crate) struct TimeWait {
    most: usize,
    ended: HashMap<Tuple, Ended>,
    in_order: VecDeque<(Tuple, Instant)>,
}

impl TimeWait {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, ended: HashMap::new(), in_order: VecDeque::new() }
    }

    /// Remembers a connection: our next sequence number, and the peer's.
    pub(crate) fn insert(&mut self, tuple: Tuple, (next, expected): (u32, u32), now: Instant) {
        self.forget(now);
        if self.in_order.len() >= self.most
            && let Some((oldest, until)) = self.in_order.pop_front()
        {
            self.remove(oldest, until);
        }
        if self.most > 0 {
            let until = now + LASTS;
            self.ended.insert(tuple, Ended { next, expected, until });
            self.in_order.push_back((tuple, until));
        }
    }

    pub(crate) fn has(&self, tuple: &Tuple) -> bool {
        self.ended.contains_key(tuple)
    }

    /// Judges a segment for which there is no connection.
    pub(crate) fn receive(&mut self, tuple: &Tuple, segment: &Segment, now: Instant) -> Late {
        self.forget(now);
        let Some(ended) = self.ended.get(tuple).copied() else { return Late::Unknown };
        // The peer begins a new connection with the same ports, beyond all that the old one has used (RFC 9293, 3.10.7.4).
        if segment.opens() && before(ended.expected, segment.sequence) {
            self.ended.remove(tuple);
            return Late::Unknown;
        }
        // A reset does not end it: it might be late itself (RFC 1337).
        let asks = !segment.has(RST) && (segment.len() > 0 || segment.has(SYN));
        let answer = Answer { sequence: ended.next, acknowledgement: ended.expected, flags: ACK, window: 0 };
        Late::Ended(asks.then_some(answer))
    }

    fn forget(&mut self, now: Instant) {
        while let Some((tuple, until)) = self.in_order.front().copied().filter(|(_, until)| *until <= now) {
            self.in_order.pop_front();
            self.remove(tuple, until);
        }
    }

    /// Removes that one, and not a later one with the same name.
    fn remove(&mut self, tuple: Tuple, until: Instant) {
        if self.ended.get(&tuple).is_some_and(|ended| ended.until == until) {
            self.ended.remove(&tuple);
        }
    }
}
