//! Clients that are not at their request yet. Whoever is new pushes out the oldest when there are too many: an honest handshake is over
//! within milliseconds, so the oldest is not one. That holds for those that had the time: many honest clients at once are no reason to
//! cut any off, and wait in the kernel's queue instead.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use tokio::{
    sync::Notify,
    task::{AbortHandle, yield_now},
    time::{Instant, sleep_until},
};

use crate::limits::GRACE;

/// All of them, the oldest first.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    limit: usize,
    next: Cell<u64>,
    waiting: RefCell<VecDeque<Waiting>>,
    left: Notify,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    since: Instant,
    task: AbortHandle,
}

/// One client's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    of: Rc<HalfOpen>,
    id: u64,
}

impl HalfOpen {
    pub(crate) fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self {
            limit: limit.max(1),
            next: Cell::default(),
            waiting: RefCell::default(),
            left: Notify::new(),
        })
    }

    /// Waits until there is room, or the oldest has had its time, so that one more client may come.
    pub(crate) async fn room(&self) {
        while let Some(due) = self.full_until() {
            if due > Instant::now() {
                tokio::select! {
                    () = self.left.notified() => {}
                    () = sleep_until(due) => {}
                }
                continue;
            }
            // If it was this thread that had no time, what the clients have sent is read first.
            yield_now().await;
            if self.full_until() == Some(due) {
                return;
            }
        }
    }

    fn full_until(&self) -> Option<Instant> {
        let waiting = self.waiting.borrow();
        waiting.front().filter(|_| waiting.len() >= self.limit).map(|oldest| oldest.since + GRACE)
    }

    /// A place for a client whose task does not run yet.
    pub(crate) fn place(self: &Rc<Self>) -> Place {
        let id = self.next.get();
        self.next.set(id + 1);
        Place { of: Rc::clone(self), id }
    }

    /// Notes the task of the client with the newest place. Says whether another was ended for it.
    pub(crate) fn enter(&self, task: AbortHandle) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(Waiting { id: self.next.get() - 1, since: Instant::now(), task });
        if waiting.len() <= self.limit {
            return false;
        }
        waiting.pop_front().is_some_and(|oldest| {
            oldest.task.abort();
            true
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.of.waiting.borrow_mut();
        // In the order of their ids.
        if let Ok(at) = waiting.binary_search_by_key(&self.id, |waiting| waiting.id) {
            waiting.remove(at);
            self.of.left.notify_one();
        }
    }
}
