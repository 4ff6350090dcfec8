//! The time of day, as latticed takes it: it never goes back while latticed runs.
//!
//! What is over must not come back to life because somebody sets the host's clock back: a token, a membership, a policy, the rest of an
//! address. Nor may time stand still until the clock has caught up, or nothing would end meanwhile. So a step forward counts at
//! once, and after a step back time goes on from where it was, at half its pace, until the clock has caught up.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tracing::{info, warn};

/// What a clock may be off without a word: it is corrected by so little all the time.
const SLACK: Duration = Duration::from_secs(5);

static CLOCK: LazyLock<Mutex<Clock>> = LazyLock::new(|| Mutex::new(Clock::new(wall(), Instant::now())));

/// Unix seconds.
pub fn now() -> i64 {
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let (now, change) = clock.read(wall(), Instant::now());
    drop(clock);
    match change {
        Some(Change::SetBack(by)) => {
            warn!(
                seconds = by.as_secs(),
                "the clock of this host was set back: time goes on at half its pace until it has caught up"
            );
        }
        Some(Change::CaughtUp) => info!("the clock of this host has caught up"),
        None => {}
    }
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Makes one time of two clocks: of the wall, which people set, and of the processor, which only goes on. Since the Unix epoch.
#[derive(Debug)]
struct Clock {
    shown: Duration,
    at: Instant,
    is_ahead: bool,
}

/// What is worth a line in the log.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// By so much.
    SetBack(Duration),
    /// After that.
    CaughtUp,
}

impl Clock {
    fn new(wall: Duration, at: Instant) -> Self {
        Self { shown: wall, at, is_ahead: false }
    }

    fn read(&mut self, wall: Duration, at: Instant) -> (Duration, Option<Change>) {
        let elapsed = at.saturating_duration_since(self.at);
        self.shown = wall.max(self.shown + elapsed / 2);
        self.at = at;
        let ahead = self.shown.saturating_sub(wall);
        let change = match self.is_ahead {
            false if ahead > SLACK => Some(Change::SetBack(ahead)),
            true if ahead.is_zero() => Some(Change::CaughtUp),
            _ => None,
        };
        if change.is_some() {
            self.is_ahead = !self.is_ahead;
        }
        (self.shown, change)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn after_a_step_back_time_goes_on_and_meets_the_clock() {
        let start = Instant::now();
        let mut clock = Clock::new(secs(10_000), start);
        assert_eq!(clock.read(secs(10_010), start + secs(10)), (secs(10_010), None));
        // Set back by an hour.
        let (now, change) = clock.read(secs(6_412), start + secs(12));
        assert_eq!((now, change), (secs(10_011), Some(Change::SetBack(secs(3_599)))));
        assert_eq!(clock.read(secs(6_512), start + secs(112)), (secs(10_061), None), "half its pace");
        let caught_up = clock.read(secs(13_612), start + secs(7_212));
        assert_eq!(caught_up, (secs(13_612), Some(Change::CaughtUp)));
        assert_eq!(clock.read(secs(20_000), start + secs(7_213)).0, secs(20_000), "forward at once");
    }

    proptest! {
        #[test]
        fn it_never_goes_back_never_stands_still_and_is_never_late(
            steps in prop::collection::vec((0u64..5_000, -5_000i64..5_000), 1..50),
        ) {
            let start = Instant::now();
            let (mut wall, mut at) = (secs(1_000_000), start);
            let mut clock = Clock::new(wall, at);
            let mut before = wall;
            for (elapsed, step) in steps {
                at += secs(elapsed);
                wall = secs((wall.as_secs() + elapsed).saturating_add_signed(step));
                let (now, _) = clock.read(wall, at);
                prop_assert!(now >= wall && now >= before + secs(elapsed) / 2);
                prop_assert!(now == wall || now == before + secs(elapsed) / 2);
                before = now;
            }
        }
    }
}
