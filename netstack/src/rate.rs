//! How many errors may be sent (RFC 1812, 4.3.2.8; RFC 4443, 2.4).

use std::time::{Duration, Instant};

/// At once, and then one in each interval.
const BURST: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(10);

/// A bucket of tokens.
#[derive(Debug)]
pub(crate) struct Rate {
    tokens: u32,
    filled_at: Instant,
}

impl Rate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled_at: now }
    }

    /// Whether one more may be sent.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let intervals = now.saturating_duration_since(self.filled_at).as_nanos() / INTERVAL.as_nanos();
        if intervals > 0 {
            self.tokens = self.tokens.saturating_add(intervals.min(BURST.into()) as u32).min(BURST);
            self.filled_at = now;
        }
        let may = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        may
    }
}
