//! What the resolver did since it was started.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Why;

/// A snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages of the agent, malformed ones among them.
    pub queries: u64,
    /// Queries answered without a nameserver: the overlay's names, localhost, private reverse names, types that have no
    /// answer here.
    pub local: u64,
    /// Queries answered from memory.
    pub cached: u64,
    /// Questions asked of nameservers. Equal ones at one time count once, and so do all attempts.
    pub forwarded: u64,
    /// Attempts that a nameserver did not answer in time, or at all.
    pub upstream_timeouts: u64,
    /// Answers that are not to our question: another id, spelling or question. Somebody may be guessing.
    pub upstream_wrong: u64,
    /// Questions to which no nameserver had an answer: the agent was told SERVFAIL.
    pub failed: u64,
    /// Messages of the agent that cannot be read, and TCP connections that announced one too long to be a query.
    pub malformed: u64,
    /// Refusals that the gate was not told, being too many.
    pub untold: u64,
    refused: [u64; Why::ALL.len()],
}

impl Counters {
    /// Queries (for [`Why::Connections`]: connections) refused for this reason.
    pub fn refused(&self, why: Why) -> u64 {
        self.refused[why as usize]
    }
}

/// What is counted into.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) queries: Count,
    pub(crate) local: Count,
    pub(crate) cached: Count,
    pub(crate) forwarded: Count,
    pub(crate) upstream_timeouts: Count,
    pub(crate) upstream_wrong: Count,
    pub(crate) failed: Count,
    pub(crate) malformed: Count,
    pub(crate) untold: Count,
    refused: [Count; Why::ALL.len()],
}

/// One number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Tally {
    pub(crate) fn refused(&self, why: Why) {
        self.refused[why as usize].add();
    }

    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            queries: self.queries.get(),
            local: self.local.get(),
            cached: self.cached.get(),
            forwarded: self.forwarded.get(),
            upstream_timeouts: self.upstream_timeouts.get(),
            upstream_wrong: self.upstream_wrong.get(),
            failed: self.failed.get(),
            malformed: self.malformed.get(),
            untold: self.untold.get(),
            refused: std::array::from_fn(|index| self.refused[index].get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        for (index, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index, "{why:?}");
        }
    }
}
