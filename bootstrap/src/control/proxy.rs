//! What the proxy of a running sandbox says of itself.

use lattice_proxy::Counters;
use serde::{Deserialize, Serialize};

/// The proxy's counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyReport {
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
    /// Requests that were refused because a limit was reached.
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

impl From<Counters> for ProxyReport {
    fn from(counters: Counters) -> Self {
        Self {
            accepted: counters.accepted,
            active: counters.active,
            connected: counters.connected,
            associated: counters.associated,
            refused: counters.refused,
            busy: counters.busy,
            unauthorized: counters.unauthorized,
            malformed: counters.malformed,
            slow: counters.slow,
            datagrams: counters.datagrams,
            datagrams_malformed: counters.datagrams_malformed,
            datagrams_foreign: counters.datagrams_foreign,
            datagrams_refused: counters.datagrams_refused,
            datagrams_dropped: counters.datagrams_dropped,
        }
    }
}
