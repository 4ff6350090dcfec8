//! The control plane: tells every node who its peers are, some time after that changed, and as soon as both are there.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{Random, queue::Queue};

/// A node asks this often, whatever was pushed.
const ASK: Duration = Duration::from_secs(15);

/// What falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A node is to be told its map.
    Push(usize),
    /// A node tells its addresses.
    Report(usize),
}

/// The control plane.
#[derive(Debug)]
pub struct Control {
    /// Whether it runs.
    pub up: bool,
    /// The longest that a push takes.
    pub delay: Duration,
    removed: BTreeSet<usize>,
    /// Pairs that a policy keeps apart.
    apart: BTreeSet<(usize, usize)>,
    reported: Vec<Vec<SocketAddr>>,
    queue: Queue<Due>,
    random: Random,
}

impl Control {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            up: true,
            delay: Duration::from_millis(300),
            removed: BTreeSet::new(),
            apart: BTreeSet::new(),
            reported: Vec::new(),
            queue: Queue::new(),
            random,
        }
    }

    pub(crate) fn add_node(&mut self) {
        self.reported.push(Vec::new());
    }

    /// Whether one is to be in the other's map.
    pub fn are_peers(&self, one: usize, other: usize) -> bool {
        one != other
            && !self.removed.contains(&one)
            && !self.removed.contains(&other)
            && !self.apart.contains(&(one.min(other), one.max(other)))
    }

    /// Takes a node out of the workspace, or back in.
    pub fn set_removed(&mut self, node: usize, removed: bool, now: Instant) {
        if removed {
            self.removed.insert(node)
        } else {
            self.removed.remove(&node)
        };
        self.push_all(now);
    }

    /// Whether it was taken out.
    pub fn is_removed(&self, node: usize) -> bool {
        self.removed.contains(&node)
    }

    /// Keeps two nodes apart, or lets them meet again.
    pub fn set_apart(&mut self, one: usize, other: usize, apart: bool, now: Instant) {
        let pair = (one.min(other), one.max(other));
        if apart {
            self.apart.insert(pair)
        } else {
            self.apart.remove(&pair)
        };
        self.push_all(now);
    }

    /// Whether a policy keeps them apart.
    pub fn is_apart(&self, one: usize, other: usize) -> bool {
        self.apart.contains(&(one.min(other), one.max(other)))
    }

    /// A node's addresses are others: it will say so.
    pub(crate) fn moved(&mut self, node: usize, now: Instant) {
        self.queue.push(now + Duration::from_millis(100), Due::Report(node));
    }

    /// A node says where it is.
    pub(crate) fn report(&mut self, node: usize, endpoints: Vec<SocketAddr>, now: Instant) {
        if std::mem::replace(&mut self.reported[node], endpoints.clone()) != endpoints {
            self.push_all(now);
        }
    }

    /// What a node says of where it is.
    pub(crate) fn endpoints(&self, node: usize) -> &[SocketAddr] {
        &self.reported[node]
    }

    fn push_all(&mut self, now: Instant) {
        for node in 0..self.reported.len() {
            let after = self.random.up_to(self.delay);
            self.queue.push(now + after, Due::Push(node));
        }
    }

    /// What could not be done, since one of the two was away.
    pub(crate) fn later(&mut self, due: Due, now: Instant) {
        let after = self.random.up_to(ASK);
        self.queue.push(now + after, due);
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.queue.next_at()
    }

    pub(crate) fn poll(&mut self, now: Instant) -> Option<Due> {
        self.queue.pop(now).map(|(_, due)| due)
    }
}
