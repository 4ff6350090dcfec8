//! When an unanswered initiation is sent again: the same bytes a few times, then others, in the first seconds.
//!
//! WireGuard waits 5 s before it begins a handshake anew. That is long for two peers that learn of each other at almost
//! the same time: the first initiation often meets a peer that does not know its sender yet, or no socket at all. The
//! same bytes are safe to send again: a responder that took the first copy drops the next by its timestamp, as it would
//! a replay, and one that did not know us then takes it now. One that did take it, and whose answer was lost, needs another
//! initiation: there is one after 0.75 s, when an answer to the first is no longer to be expected on most paths, and two more.
//! Where it took longer than that, the answer to the first still comes, and says how long to wait for the next ([`crate::pending`]).
//! Any responder takes them: the paper limits how soon an initiator begins anew while nobody listens, which is why only the first
//! search is so quick, and a responder's own limit is 20 ms.

use std::time::{Duration, Instant};

use crate::message::INITIATION_LEN;

/// After the first time, how long until each further one, and whether it is another initiation.
const SCHEDULE: [(Duration, bool); 6] = [
    (Duration::from_millis(50), false),
    (Duration::from_millis(150), false),
    (Duration::from_millis(350), false),
    (Duration::from_millis(750), true),
    (Duration::from_millis(1500), true),
    (Duration::from_millis(3000), true),
];

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Repeat<'a> {
    /// These bytes once more.
    Same(&'a [u8]),
    /// Another initiation; [`Retransmit::replace`] is told of it.
    Anew,
}

/// An initiation that was sent once, and when it is due again.
pub(crate) struct Retransmit {
    initiation: [u8; INITIATION_LEN],
    first_sent: Instant,
    retransmitted: usize,
    /// Nothing is due before.
    not_before: Instant,
}

impl Retransmit {
    pub(crate) fn new(initiation: [u8; INITIATION_LEN], now: Instant) -> Self {
        Self { initiation, first_sent: now, retransmitted: 0, not_before: now }
    }

    /// The initiation, for another second MAC.
    pub(crate) fn message_mut(&mut self) -> &mut [u8] {
        &mut self.initiation
    }

    /// When it is due again; `None` when it was sent often enough.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        SCHEDULE.get(self.retransmitted).map(|(after, _)| (self.first_sent + *after).max(self.not_before))
    }

    /// What is due. However late the call, what was missed is not made up for.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Repeat<'_>> {
        if now < self.not_before {
            return None;
        }
        let elapsed = now.saturating_duration_since(self.first_sent);
        let due = SCHEDULE.iter().filter(|(after, _)| *after <= elapsed).count();
        let anew = SCHEDULE.get(self.retransmitted..due)?.iter().map(|(_, anew)| *anew).max()?;
        self.retransmitted = due;
        Some(if anew { Repeat::Anew } else { Repeat::Same(&self.initiation) })
    }

    /// Nothing is due before `until`: the peer is known to answer, and to take so long.
    pub(crate) fn postpone(&mut self, until: Instant) {
        self.not_before = self.not_before.max(until);
    }

    /// From now on it is about this one, by the same schedule.
    pub(crate) fn replace(&mut self, initiation: [u8; INITIATION_LEN]) {
        self.initiation = initiation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_due_when_it_says_and_never_more_often_than_planned(
            calls in prop::collection::vec(0u64..1000, 0..40),
        ) {
            let start = Instant::now();
            let mut retransmit = Retransmit::new([7; INITIATION_LEN], start);
            let (mut now, mut sent) = (start, 0);
            for later in calls {
                now += Duration::from_millis(later);
                let due = retransmit.due_at().is_some_and(|at| at <= now);
                let is_late = now.saturating_duration_since(start) >= Duration::from_millis(750);
                let taken = retransmit.take_due(now);
                prop_assert_eq!(taken.is_some(), due);
                let expected = if is_late { Repeat::Anew } else { Repeat::Same(&[7; INITIATION_LEN]) };
                prop_assert!(taken.is_none_or(|taken| taken == expected));
                prop_assert!(retransmit.due_at().is_none_or(|at| at > now));
                sent += usize::from(due);
            }
            prop_assert!(sent <= SCHEDULE.len());
        }
    }
}
