//! Clients that are not at their request yet. Whoever is new pushes out the oldest when there are too many: an honest handshake is over
//! within milliseconds, so the oldest is not one.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use tokio::task::AbortHandle;

/// All of them, the oldest first.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    limit: usize,
    next: Cell<u64>,
    waiting: RefCell<VecDeque<(u64, AbortHandle)>>,
}

/// One client's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    of: Rc<HalfOpen>,
    id: u64,
}

impl HalfOpen {
    pub(crate) fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit: limit.max(1), next: Cell::default(), waiting: RefCell::default() })
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
        waiting.push_back((self.next.get() - 1, task));
        if waiting.len() <= self.limit {
            return false;
        }
        waiting.pop_front().is_some_and(|(_, oldest)| {
            oldest.abort();
            true
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.of.waiting.borrow_mut();
        // In the order of their ids.
        if let Ok(at) = waiting.binary_search_by_key(&self.id, |(id, _)| *id) {
            waiting.remove(at);
        }
    }
}
