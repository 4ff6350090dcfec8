//! The device's clock: it goes on while the machine sleeps, so that sessions end in time, and it notices when the machine was copied
//! or set back, so that none is used twice.

use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// How far the time of day and the time since the boot may drift apart at once. A correction of the clock is seldom that big; if one is,
/// new handshakes are all that it costs.
const JUMP: Duration = Duration::from_secs(10);

/// `CLOCK_BOOTTIME` (`clock_gettime(2)`) as [`Instant`]s.
pub(crate) struct Clock {
    start: Instant,
    boot: Duration,
    /// When the machine was started, by the clock on the wall.
    booted: Option<SystemTime>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), boot: boot_time(), booted: booted(boot_time()) }
    }

    /// Now.
    pub(crate) fn now(&self) -> Instant {
        self.start + boot_time().saturating_sub(self.boot)
    }

    /// What `CLOCK_BOOTTIME` says at `now`, in nanoseconds.
    pub(crate) fn boot_ns(&self, now: Instant) -> u64 {
        u64::try_from(self.boot_at(now).as_nanos()).unwrap_or(u64::MAX)
    }

    fn boot_at(&self, now: Instant) -> Duration {
        self.boot + now.saturating_duration_since(self.start)
    }

    /// Whether the clock on the wall jumped since the last call, as it does where a machine goes on from a snapshot. It is `now`.
    pub(crate) fn jumped(&mut self, now: Instant) -> bool {
        let booted = booted(self.boot_at(now));
        let before = std::mem::replace(&mut self.booted, booted);
        is_jump(before, self.booted)
    }
}

fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

fn booted(boot: Duration) -> Option<SystemTime> {
    SystemTime::now().checked_sub(boot)
}

fn is_jump(before: Option<SystemTime>, now: Option<SystemTime>) -> bool {
    let Some((before, now)) = before.zip(now) else { return false };
    let apart = now.duration_since(before).unwrap_or_else(|error| error.duration());
    apart > JUMP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_does_not_jump_and_one_that_is_set_does() {
        let mut clock = Clock::new();
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(20));
        assert!(clock.now() - first >= Duration::from_millis(20));
        let now = clock.now();
        assert!(!clock.jumped(now));
        assert!(boot_time().as_nanos() - u128::from(clock.boot_ns(now)) < 60_000_000_000);
        for (by, jumps) in [(Duration::from_secs(9), false), (Duration::from_secs(11), true)] {
            let then = clock.booted.unwrap();
            assert_eq!(is_jump(Some(then), Some(then + by)), jumps);
            assert_eq!(is_jump(Some(then + by), Some(then)), jumps);
        }
    }
}
