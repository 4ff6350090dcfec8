//! Signals that wait: the newest, at most so many.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lattice_wire::{Signal, WgPublicKey};
use tokio::sync::Notify;

type Item = (WgPublicKey, Signal);

/// First in, first out; full, the first is pushed out. For one taker.
pub(super) struct Queue {
    most: usize,
    items: Mutex<VecDeque<Item>>,
    bell: Notify,
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { most, items: Mutex::default(), bell: Notify::new() }
    }

    /// How many it pushed out.
    pub(super) fn push(&self, item: Item) -> u64 {
        let mut items = self.items();
        let is_full = items.len() >= self.most;
        if is_full {
            items.pop_front();
        }
        items.push_back(item);
        drop(items);
        self.bell.notify_one();
        u64::from(is_full)
    }

    pub(super) fn try_pop(&self) -> Option<Item> {
        self.items().pop_front()
    }

    pub(super) async fn pop(&self) -> Item {
        loop {
            if let Some(item) = self.try_pop() {
                return item;
            }
            self.bell.notified().await;
        }
    }

    /// Ready while there is something to take.
    pub(super) async fn is_waiting(&self) {
        while self.items().is_empty() {
            self.bell.notified().await;
        }
    }

    fn items(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits holds passwords.
impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} of {})", self.items().len(), self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(seq: u64) -> Item {
        let signal = Signal {
            epoch: 1,
            seq,
            answers: None,
            ufrag: "u".into(),
            password: "secret".into(),
            candidates: vec![],
            relays: vec![],
        };
        (WgPublicKey([0; 32]), signal)
    }

    #[tokio::test]
    async fn the_newest_stay_in_their_order() {
        let queue = Queue::new(3);
        let pushed_out: u64 = (0..5).map(|seq| queue.push(item(seq))).sum();
        assert_eq!(pushed_out, 2);
        assert_eq!(format!("{queue:?}"), "Queue(3 of 3)");
        queue.is_waiting().await;
        for seq in 2..5 {
            assert_eq!(queue.pop().await.1.seq, seq);
        }
        assert!(queue.try_pop().is_none());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let queue = Queue::new(1);
        let (taken, ()) = tokio::join!(queue.pop(), async {
            tokio::task::yield_now().await;
            queue.push(item(7));
        });
        assert_eq!(taken.1.seq, 7);
    }
}
