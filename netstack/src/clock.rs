//! The owner's time, as smoltcp counts it.

use std::time::{Duration, Instant};

use smoltcp::time::Instant as Ticks;

/// Microseconds since the stack was made. It begins late enough that what smoltcp sets to zero has long been.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

const HEAD_START: u64 = 1_000_000_000;

impl Clock {
    pub(crate) fn new(now: Instant) -> Self {
        Self(now)
    }

    pub(crate) fn ticks(self, now: Instant) -> Ticks {
        let micros = now.saturating_duration_since(self.0).as_micros() as u64 + HEAD_START;
        Ticks::from_micros(micros as i64)
    }

    pub(crate) fn instant(self, ticks: Ticks) -> Instant {
        self.0 + Duration::from_micros((ticks.total_micros() as u64).saturating_sub(HEAD_START))
    }
}
