//! The events that containerd has yet to take.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use containerd_shim_protos::shim::event::Envelope;
use tokio::sync::{Notify, watch};

/// Of some 200 bytes each: what a pod causes in minutes.
pub(super) const MOST: usize = 1024;

/// In order, bounded, with one consumer.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// The number of the last event that was dealt with.
    done: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<(u64, Envelope)>,
    published: u64,
    dropped: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: Mutex::default(), arrived: Notify::new(), done: watch::channel(0).0 }
    }
}

impl Queue {
    pub(super) fn push(&self, event: Envelope) {
        let mut waiting = self.waiting();
        if waiting.events.len() == MOST
            && let Some((_, oldest)) = waiting.events.pop_front()
        {
            waiting.dropped += 1;
            let dropped = waiting.dropped;
            tracing::error!(
                topic = oldest.topic,
                dropped,
                "containerd is away too long: the oldest event is lost"
            );
        }
        waiting.published += 1;
        let number = waiting.published;
        waiting.events.push_back((number, event));
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The next one, with its number for [`Queue::done`].
    pub(super) async fn next(&self) -> (u64, Envelope) {
        loop {
            if let Some(next) = self.waiting().events.pop_front() {
                return next;
            }
            self.arrived.notified().await;
        }
    }

    /// The event of that number was taken, or given up.
    pub(super) fn done(&self, number: u64) {
        self.done.send_replace(number);
    }

    /// Resolves when everything that was pushed before this call is done.
    pub(super) async fn taken_so_far(&self) {
        let published = self.waiting().published;
        // The sender is ours: it cannot be gone.
        let _ = self.done.subscribe().wait_for(|done| *done >= published).await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
