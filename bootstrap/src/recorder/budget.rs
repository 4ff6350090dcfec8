//! How many records an agent can cause. Whoever scans a network makes a verdict with each packet, and would fill the
//! disk of the host with them. What goes beyond the budget is counted, and the count is put on record.

use std::time::Instant;

/// A bucket of records that fills again with time.
#[derive(Debug)]
pub(super) struct Budget {
    burst: u32,
    per_second: u32,
    left: u32,
    filled: Instant,
}

impl Budget {
    /// For denied flows: some 1.7 GB a day at worst.
    pub(super) fn denied(now: Instant) -> Self {
        Self::new(4096, 50, now)
    }

    /// For allowed ones, of which a busy agent opens many, and which matter more.
    pub(super) fn allowed(now: Instant) -> Self {
        Self::new(16_384, 1000, now)
    }

    fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self { burst, per_second, left: burst, filled: now }
    }

    /// Takes one record out; false when there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            self.fill(now);
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }

    fn fill(&mut self, now: Instant) {
        let millis = now.saturating_duration_since(self.filled).as_millis();
        let fresh = millis * u128::from(self.per_second) / 1000;
        // What is less than one stays in the time that was not yet counted.
        if fresh > 0 {
            self.left = u32::try_from(fresh).unwrap_or(u32::MAX).min(self.burst);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_a_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(10, 50, start);
        let mut take = |millis| {
            let now = start + Duration::from_millis(millis);
            (0..100).filter(|_| budget.take(now)).count()
        };
        assert_eq!(take(0), 10);
        assert_eq!(take(10), 0);
        assert_eq!(take(40), 2, "40 ms at 50 a second");
        assert_eq!(take(3_600_000), 10, "no more than a burst");
    }
}
