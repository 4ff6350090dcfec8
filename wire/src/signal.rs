//! What two peers tell each other to find a path between them: sealed ([`crate::seal`]), and left on [`crate::subject::signal`].
//!
//! NATS may lose, repeat, delay and reorder signals, and a hostile NATS may replay old ones. So each carries the sender's epoch and
//! says which epoch of the receiver it answers: candidates count only in a signal that names the receiver's present epoch.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Most candidates of one signal that a receiver takes.
pub const MAX_CANDIDATES: usize = 16;

/// Everything the sender knows at the time; a later one replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Random, anew whenever the sender gathers anew (ICE restart).
    pub epoch: u64,
    /// Counts the sender's signals of this epoch: a receiver ignores one that is not newer.
    pub seq: u64,
    /// The receiver's epoch as the sender knows it; `None` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
    /// ICE user name fragment and password (RFC 8445 section 5.3) of this epoch: 4 and 22 to 64 letters, digits, `+` and `/`.
    pub ufrag: String,
    /// See `ufrag`.
    pub password: String,
    /// Where the sender may be reached; those beyond [`MAX_CANDIDATES`] are ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// Names of the relays ([`crate::reach::RelayServer::name`]) that it is connected to, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<String>,
}

/// An address of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// How it is known.
    pub kind: CandidateKind,
    /// The address.
    pub address: SocketAddr,
}

/// How an address is known (RFC 8445 section 5.1.1). There are no relay candidates: relays are named in [`Signal::relays`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CandidateKind {
    /// A link of the sender has it.
    Host,
    /// A STUN server sees the sender there.
    Reflexive,
}
