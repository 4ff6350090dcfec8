//! When the control plane was last heard from, and what time it is as long as it is not.
//!
//! Whose time is over must stay cut off while nobody can say so but the clock. So a clock that is set back counts only once the control
//! plane was heard from again, which then says itself who is a member.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::{now_unix, since_boot};

/// Shared by who hears it and who is asked. By the clock that goes on while the host sleeps.
#[derive(Debug, Clone)]
pub(crate) struct Heard(Arc<Moment>);

#[derive(Debug)]
struct Moment {
    /// Seconds since the host was started.
    at: AtomicU64,
    /// When that start was, in Unix seconds by the time of day at this moment.
    started: AtomicI64,
}

impl Heard {
    /// Heard from just now.
    pub(crate) fn just_now() -> Self {
        let heard = Self(Arc::new(Moment { at: AtomicU64::new(0), started: AtomicI64::new(0) }));
        heard.again();
        heard
    }

    /// It was heard from again.
    pub(crate) fn again(&self) {
        let now = since_boot().as_secs();
        self.0.at.store(now, Ordering::Relaxed);
        self.0.started.store(now_unix().saturating_sub_unsigned(now), Ordering::Relaxed);
    }

    /// For how long it was not, in whole seconds.
    pub(crate) fn ago(&self) -> Duration {
        since_boot().saturating_sub(Duration::from_secs(self.0.at.load(Ordering::Relaxed)))
    }

    /// The time in Unix seconds: by the clock of the host, unless that was set back since.
    pub(crate) fn now(&self) -> i64 {
        self.later(now_unix(), since_boot())
    }

    fn later(&self, clock: i64, since_start: Duration) -> i64 {
        clock.max(self.0.started.load(Ordering::Relaxed).saturating_add_unsigned(since_start.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_counts_from_the_next_word_on() {
        let heard = Heard::just_now();
        let (clock, since_start) = (now_unix(), since_boot());
        let in_an_hour = since_start + Duration::from_secs(3600);
        for (set, expected) in [(3600, 3600), (0, 3600), (-7200, 3600), (9000, 9000)] {
            // The seconds of the two clocks do not begin at the same time.
            let off = heard.later(clock + set, in_an_hour) - (clock + expected);
            assert!((-2..=2).contains(&off), "{set}: {off}");
        }
        // As if it had been heard from while the clock was an hour behind.
        heard.0.started.fetch_sub(3600, Ordering::Relaxed);
        assert_eq!(heard.later(clock, since_start), clock);
    }
}
