//! Every bound of this crate, and the bucket that keeps rates.

use std::time::{Duration, Instant};

/// Most of our own addresses that are checked from; those beyond are ignored.
pub const MAX_BASES: usize = 8;
/// Most STUN servers asked; [`lattice_wire::reach::MAX_SERVERS`].
pub const MAX_STUN_SERVERS: usize = 8;
/// Most pairs checked with one peer: the RFC's own default (RFC 8445 section 6.1.2.5).
pub const MAX_PAIRS: usize = 100;
/// Of those, most pairs with the addresses of links, so that reflexive ones have room too.
pub const MAX_HOST_PAIRS: usize = 70;
/// Most addresses of a peer that were learned from its own checks alone.
pub const MAX_PEER_REFLEXIVE: usize = 16;
/// Datagrams that wait to be taken; the oldest is dropped beyond.
pub const MAX_TRANSMITS: usize = 1024;

/// Checks of one peer to addresses that have not answered: at once.
pub const PEER_PROBES_BURST: u32 = 60;
/// And in a second.
pub const PEER_PROBES: u32 = 20;
/// The same of all peers together: at once. One is some 120 bytes.
pub const ALL_PROBES_BURST: u32 = 1000;
/// And in a second.
pub const ALL_PROBES: u32 = 1000;
/// Signals to one peer: at once.
pub const SIGNALS_BURST: u32 = 8;
/// How long until there may be one more.
pub const SIGNAL_REFILL: Duration = Duration::from_secs(2);
/// The least time between two signals to one peer: what changes meanwhile goes together.
pub const SIGNAL_GAP: Duration = Duration::from_millis(100);

/// A token bucket: `burst` at once, then one in each `interval`.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    burst: u32,
    interval: Duration,
    tokens: u32,
    /// When the next token comes, counted from.
    since: Option<Instant>,
}

impl Bucket {
    pub(crate) const fn new(burst: u32, interval: Duration) -> Self {
        Self { burst, interval, tokens: burst, since: None }
    }

    pub(crate) const fn per_second(burst: u32, rate: u32) -> Self {
        Self::new(burst, Duration::from_nanos(1_000_000_000 / rate as u64))
    }

    /// When there is a token; not later than `now` when there is one.
    pub(crate) fn ready_at(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since).as_nanos() / self.interval.as_nanos().max(1);
        let fresh = u32::try_from(elapsed).unwrap_or(u32::MAX);
        if fresh >= self.burst - self.tokens {
            (self.tokens, self.since) = (self.burst, Some(now));
        } else if fresh > 0 {
            self.tokens += fresh;
            self.since = Some(since + self.interval * fresh);
        }
        if self.tokens > 0 { now } else { self.since.unwrap_or(now) + self.interval }
    }

    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let ready = self.ready_at(now) <= now && self.tokens > 0;
        self.tokens -= u32::from(ready);
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::per_second(10, 5);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 10);
        assert_eq!(bucket.ready_at(start), start + Duration::from_millis(200));
        let mut taken = 0;
        for ms in 1..=2000 {
            taken += usize::from(bucket.take(start + Duration::from_millis(ms)));
        }
        assert_eq!(taken, 10);
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 10);
        assert!(!bucket.take(start), "time that goes back gives nothing");
    }
}
