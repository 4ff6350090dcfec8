//! Two addresses, and what is known of the way between them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::signal::CandidateKind;

use crate::stun::TransactionId;

/// Transactions of a pair whose answers still count.
const REMEMBERED: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Checking,
    Valid,
    Failed,
}

/// An address of ours and one of the peer's.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) base: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(super) priority: u64,
    pub(super) state: State,
    pub(super) tries: u8,
    pub(super) due: Instant,
    /// The peer's own check came by it: a check of ours will probably pass.
    pub(super) triggered: bool,
    pub(super) sent: [Option<(TransactionId, Instant)>; REMEMBERED],
    /// The first of those checks that nothing was heard after.
    pub(super) unanswered_since: Option<Instant>,
    pub(super) unanswered: u8,
    pub(super) rtt: Option<Duration>,
    /// The peer, controlling, named it; a later one has a higher number.
    pub(super) nomination: u32,
}

impl Pair {
    pub(super) fn new(base: SocketAddr, remote: SocketAddr, priority: u64, now: Instant) -> Self {
        Self {
            base,
            remote,
            priority,
            state: State::Checking,
            tries: 0,
            due: now,
            triggered: false,
            sent: [None; REMEMBERED],
            unanswered_since: None,
            unanswered: 0,
            rtt: None,
            nomination: 0,
        }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        (self.state, self.tries, self.due) = (State::Checking, 0, now);
        (self.unanswered_since, self.unanswered, self.nomination) = (None, 0, 0);
    }

    pub(super) fn last_sent(&self) -> Option<Instant> {
        self.sent[0].map(|(_, at)| at)
    }

    /// Its last round trip.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }
}

/// RFC 8445 section 5.1.2.1, for the candidate that is `index`th of its kind.
pub(super) fn priority(kind: CandidateKind, index: usize) -> u32 {
    let of_kind: u32 = match kind {
        CandidateKind::Host => 126,
        CandidateKind::Reflexive => 100,
    };
    (of_kind << 24) | ((0xFFFF - index.min(0xFFFF) as u32) << 8) | 0xFF
}

/// That of what the peer will learn from our checks from our `index`th address.
pub(crate) fn peer_reflexive_priority(index: usize) -> u32 {
    (110 << 24) | (priority(CandidateKind::Host, index) & 0xFF_FFFF)
}

/// That of a pair, from those of its two ends (RFC 8445 section 6.1.2.3).
pub(super) fn pair_priority(controlling: u32, controlled: u32) -> u64 {
    let (min, max) = (controlling.min(controlled), controlling.max(controlled));
    (u64::from(min) << 32) + 2 * u64::from(max) + u64::from(controlling > controlled)
}
