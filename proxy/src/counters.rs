//! What the proxy did since it was started.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

/// A snapshot. A missing one is 0 when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Clients that connected.
    pub accepted: u64,
    /// Clients beyond the handshake at the moment.
    pub active: u64,
    /// Connections that were opened behind the proxy.
    pub connected: u64,
    /// UDP associations that were opened.
    pub associated: u64,
    /// Requests that were refused behind the proxy, by the policy or by the network.
    pub refused: u64,
    /// Requests that were refused because [`Limits`](crate::Limits) were reached.
    pub busy: u64,
    /// Clients without the right credentials.
    pub unauthorized: u64,
    /// Clients that said what is not spoken here.
    pub malformed: u64,
    /// Clients that did not come to a request in time, or were cut off because others waited.
    pub slow: u64,
    /// Datagrams that were carried, in both directions.
    pub datagrams: u64,
    /// Datagrams of clients without a header that can be used, and parts of datagrams.
    pub datagrams_malformed: u64,
    /// Datagrams that came to an association from somebody else than its client.
    pub datagrams_foreign: u64,
    /// Datagrams that were refused behind the proxy.
    pub datagrams_refused: u64,
    /// Datagrams beyond the limits of an association.
    pub datagrams_dropped: u64,
}

/// What is counted into, by one thread.
#[derive(Debug, Default)]
pub(crate) struct Tally(Cell<Counters>);

impl Tally {
    pub(crate) fn snapshot(&self) -> Counters {
        self.0.get()
    }

    pub(crate) fn count(&self, what: impl FnOnce(&mut Counters) -> &mut u64) {
        let mut counters = self.0.get();
        *what(&mut counters) += 1;
        self.0.set(counters);
    }

    /// One less.
    pub(crate) fn gone(&self, what: impl FnOnce(&mut Counters) -> &mut u64) {
        let mut counters = self.0.get();
        *what(&mut counters) -= 1;
        self.0.set(counters);
    }
}
