//! When an unanswered initiation is sent again: the same bytes, a few times, in the first seconds.
//!
//! WireGuard waits 5 s before it begins a handshake anew. That is long for two peers that learn of each other at almost
//! the same time: the first initiation often meets a peer that does not know its sender yet, or no socket at all. The
//! same bytes are safe to send again: a responder that took the first copy drops the next by its timestamp, as it would
//! a replay, and one that did not know us then takes it now.

use std::time::{Duration, Instant};

use crate::message::INITIATION_LEN;

/// After the first time, how long until each further one.
const SCHEDULE: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(350),
    Duration::from_millis(750),
    Duration::from_millis(1500),
    Duration::from_millis(3000),
];

/// An initiation that was sent once, and when it is due again.
pub(crate) struct Retransmit {
    initiation: [u8; INITIATION_LEN],
    first_sent: Instant,
    retransmitted: usize,
}

impl Retransmit {
    pub(crate) fn new(initiation: [u8; INITIATION_LEN], now: Instant) -> Self {
        Self { initiation, first_sent: now, retransmitted: 0 }
    }

    /// The initiation, for another second MAC.
    pub(crate) fn message_mut(&mut self) -> &mut [u8] {
        &mut self.initiation
    }

    /// When it is due again; `None` when it was sent often enough.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        SCHEDULE.get(self.retransmitted).map(|after| self.first_sent + *after)
    }

    /// The initiation, if it is due. However late the call, what was missed is not made up for.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<&[u8]> {
        let elapsed = now.saturating_duration_since(self.first_sent);
        let due = SCHEDULE.iter().filter(|after| **after <= elapsed).count();
        if due <= self.retransmitted {
            return None;
        }
        self.retransmitted = due;
        Some(&self.initiation)
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
                let taken = retransmit.take_due(now).map(<[u8]>::to_vec);
                prop_assert_eq!(taken.is_some(), due);
                prop_assert!(taken.is_none_or(|bytes| bytes == [7; INITIATION_LEN]));
                prop_assert!(retransmit.due_at().is_none_or(|at| at > now));
                sent += usize::from(due);
            }
            prop_assert!(sent <= SCHEDULE.len());
        }
    }
}
