//! Packets that wait for a session. An agent chooses how many and for whom, so they are bounded for each peer and for all.

use std::collections::VecDeque;

use crate::limits::{MAX_QUEUED, MAX_QUEUED_BYTES};

/// Bytes that may still be queued, by all peers together.
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(MAX_QUEUED_BYTES)
    }
}

/// The packets that wait for one peer's session.
#[derive(Default)]
pub(crate) struct Queue(VecDeque<Box<[u8]>>);

impl Queue {
    /// Queues a packet; the oldest gives way where one peer's are too many. Returns how many were dropped for it, itself
    /// included where there is no room at all.
    pub(crate) fn push(&mut self, packet: Box<[u8]>, budget: &mut Budget) -> u64 {
        let oldest = if self.0.len() >= MAX_QUEUED { self.pop(budget) } else { None };
        let dropped = u64::from(oldest.is_some());
        match budget.0.checked_sub(packet.len()) {
            Some(left) => budget.0 = left,
            None => return dropped + 1,
        }
        self.0.push_back(packet);
        dropped
    }

    /// The oldest.
    pub(crate) fn pop(&mut self, budget: &mut Budget) -> Option<Box<[u8]>> {
        let packet = self.0.pop_front()?;
        budget.0 += packet.len();
        Some(packet)
    }

    /// Drops all, and gives their memory back. Returns how many.
    pub(crate) fn clear(&mut self, budget: &mut Budget) -> u64 {
        let packets = std::mem::take(&mut self.0);
        budget.0 += packets.iter().map(|packet| packet.len()).sum::<usize>();
        packets.len() as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_of_a_peer_and_so_many_bytes_of_all() {
        let (mut queue, mut other, mut budget) = (Queue::default(), Queue::default(), Budget::new());
        let packet = |number: usize| vec![number as u8; 20].into_boxed_slice();
        let dropped: u64 = (0..MAX_QUEUED + 3).map(|number| queue.push(packet(number), &mut budget)).sum();
        assert_eq!(dropped, 3);
        assert_eq!(queue.pop(&mut budget).unwrap()[0], 3);
        queue.push(packet(0), &mut budget);

        let big = || vec![0; MAX_QUEUED_BYTES / 2].into_boxed_slice();
        assert_eq!([other.push(big(), &mut budget), other.push(big(), &mut budget)], [0, 1]);
        assert_eq!(queue.clear(&mut budget), MAX_QUEUED as u64);
        assert_eq!(other.push(big(), &mut budget), 0);
        assert_eq!((other.clear(&mut budget), budget.0), (2, MAX_QUEUED_BYTES));
    }
}
