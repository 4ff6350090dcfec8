//! The signalling service: brings what one peer tells another, late, twice, out of order, or, when either is away, not at all.
//! A hostile one says old things again.

use std::time::{Duration, Instant};

use lattice_wire::signal::Signal;

use crate::{HostId, Random, queue::Queue};

/// Signals that a hostile service keeps to say them again.
const HISTORY: usize = 64;

/// The service.
#[derive(Debug)]
pub struct Signalling {
    /// Whether it runs.
    pub up: bool,
    /// How long a signal takes at least.
    pub latency: Duration,
    /// By how much longer some take.
    pub jitter: Duration,
    /// Of a thousand, how many are lost.
    pub loss: u16,
    /// How many are lost, beginning with the next.
    pub lose: u32,
    /// Of a thousand, how many come twice.
    pub duplication: u16,
    queue: Queue<Letter>,
    history: Vec<Letter>,
    random: Random,
}

/// A signal under way.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    pub(crate) signal: Signal,
}

impl Signalling {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            up: true,
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(30),
            loss: 0,
            lose: 0,
            duplication: 20,
            queue: Queue::new(),
            history: Vec::new(),
            random,
        }
    }

    /// Takes a signal from a peer that is connected.
    pub(crate) fn send(&mut self, letter: Letter, now: Instant) {
        if !self.up {
            return;
        }
        if self.lose > 0 {
            self.lose -= 1;
            return;
        }
        if self.history.len() == HISTORY {
            self.history.swap_remove(self.random.below(HISTORY));
        }
        self.history.push(letter.clone());
        if self.random.chance(self.duplication) {
            self.post(letter.clone(), now);
        }
        if !self.random.chance(self.loss) {
            self.post(letter, now);
        }
    }

    /// Says `count` old things again.
    pub fn replay(&mut self, count: usize, now: Instant) {
        for _ in 0..count.min(self.history.len()) {
            let letter = self.random.choose(&self.history);
            self.post(letter, now);
        }
    }

    fn post(&mut self, letter: Letter, now: Instant) {
        let after = self.latency + self.random.up_to(self.jitter);
        self.queue.push(now + after, letter);
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.queue.next_at()
    }

    /// The next signal to hand to its receiver, if that is connected.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Letter> {
        while let Some((_, letter)) = self.queue.pop(now) {
            if self.up {
                return Some(letter);
            }
        }
        None
    }
}
