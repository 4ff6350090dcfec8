//! What is to happen, in order of time.

use std::{cmp::Ordering, collections::BinaryHeap, time::Instant};

/// Events by time; those of one instant in the order in which they were put in.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    count: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Instant,
    number: u64,
    event: T,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), count: 0 }
    }

    pub(crate) fn push(&mut self, at: Instant, event: T) {
        self.count += 1;
        self.heap.push(Entry { at, number: self.count, event });
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next event, if it is due, and when it was.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, T)> {
        self.heap.peek().filter(|entry| entry.at <= now)?;
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}
