//! What waits to be sent to a client. Bounded in bytes; a datagram that finds no room is dropped, so that a client that does not
//! receive costs the others nothing.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::transport;

/// What a datagram costs beyond its bytes.
const OVERHEAD: usize = 64;
/// A datagram is part of the buffer in which up to 64 were received, and keeps all of it. As long as no more than this waits, in
/// bytes, that does not matter; beyond, it is copied.
const SHARED: usize = 32 << 10;

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Queued,
    /// No room: the client takes less than it is sent.
    Full,
    /// Longer than the path to the client carries: what that does, in bytes.
    TooLarge(u16),
    /// The client has left.
    Closed,
}

/// The way to a client.
#[derive(Debug)]
pub(crate) enum Outbox {
    /// quinn's own queue, of the same bound.
    Quic {
        connection: quinn::Connection,
        limit: usize,
    },
    Tcp(Queue),
}

impl Outbox {
    /// Queues a data body, handle and datagram.
    pub(crate) fn send(&self, body: Bytes) -> Outcome {
        match self {
            Self::Tcp(queue) => queue.push(body),
            Self::Quic { connection, limit } => {
                let room = connection.datagram_send_buffer_space();
                if room < body.len() {
                    return Outcome::Full;
                }
                let body = if room + SHARED < *limit { Bytes::copy_from_slice(&body) } else { body };
                match connection.send_datagram(body) {
                    Ok(()) => Outcome::Queued,
                    Err(quinn::SendDatagramError::ConnectionLost(_)) => Outcome::Closed,
                    Err(_) => Outcome::TooLarge(transport::fits(connection)),
                }
            }
        }
    }
}

/// The datagrams for a client on TCP.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// Told when something comes into an empty queue.
    pub(crate) bell: Notify,
    limit: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    bodies: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    /// Holds at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { waiting: Mutex::default(), bell: Notify::new(), limit }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, body: Bytes) -> Outcome {
        let was_empty = {
            let mut waiting = self.lock();
            let bytes = waiting.bytes + body.len() + OVERHEAD;
            if bytes > self.limit {
                return Outcome::Full;
            }
            let body = if waiting.bytes > SHARED { Bytes::copy_from_slice(&body) } else { body };
            waiting.bytes = bytes;
            waiting.bodies.push_back(body);
            waiting.bodies.len() == 1
        };
        if was_empty {
            self.bell.notify_one();
        }
        Outcome::Queued
    }

    /// Hands the oldest to `take` until it says that it wants no more.
    pub(crate) fn drain(&self, mut take: impl FnMut(&[u8]) -> bool) {
        let mut waiting = self.lock();
        while let Some(body) = waiting.bodies.pop_front() {
            waiting.bytes -= body.len() + OVERHEAD;
            if !take(&body) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_holds_no_more_than_its_limit_and_gives_room_back() {
        let queue = Queue::new(10 * (100 + OVERHEAD));
        let body = Bytes::from(vec![0; 100]);
        let sent = (0..20).filter(|_| queue.push(body.clone()) == Outcome::Queued).count();
        assert_eq!(sent, 10);
        let mut seen = 0;
        queue.drain(|_| {
            seen += 1;
            seen < 4
        });
        assert_eq!(seen, 4);
        assert_eq!((0..20).filter(|_| queue.push(body.clone()) == Outcome::Queued).count(), 4);
        queue.drain(|_| true);
        assert_eq!(queue.lock().bytes, 0);
    }

    /// A byte of each of many large buffers must not keep them all.
    #[test]
    fn what_waits_long_does_not_keep_the_buffer_it_came_in() {
        let queue = Queue::new(1 << 20);
        let buffer = Bytes::from(vec![7; 64 << 10]);
        for at in 0..400 {
            queue.push(buffer.slice(at..at + 1000));
        }
        let shared =
            queue.lock().bodies.iter().filter(|body| buffer.as_ptr_range().contains(&body.as_ptr())).count();
        assert!((1..=SHARED / 1000 + 1).contains(&shared), "{shared}");
    }
}
