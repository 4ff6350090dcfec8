//! Token buckets that take the time as an argument.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// How much at once, and how much per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) burst: f64,
    pub(crate) per_second: f64,
}

/// A bucket that is full at first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, at: now }
    }

    /// Takes `amount` if so much is there.
    pub(crate) fn take(&mut self, rate: Rate, amount: f64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate.per_second).min(rate.burst);
        self.at = self.at.max(now);
        let enough = self.tokens >= amount;
        if enough {
            self.tokens -= amount;
        }
        enough
    }
}

/// One bucket per source address, in a table of fixed size. Sources that fall on the same slot share its bucket; which do is
/// decided by a random key, so nobody can choose whom to share with.
#[derive(Debug)]
pub(crate) struct SourceRates {
    rate: Rate,
    hasher: RandomState,
    slots: Mutex<Box<[Bucket]>>,
}

impl SourceRates {
    pub(crate) fn new(rate: Rate, slots: usize, now: Instant) -> Self {
        let slots = Mutex::new(vec![Bucket::new(rate, now); slots.max(1)].into());
        Self { rate, hasher: RandomState::new(), slots }
    }

    /// Takes one token of `source`.
    pub(crate) fn take(&self, source: IpAddr, now: Instant) -> bool {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = self.hasher.hash_one(source_key(source)) as usize % slots.len();
        slots[slot].take(self.rate, 1.0, now)
    }
}

/// What counts as one source: an IPv4 address, or the /64 that an IPv6 host owns.
pub(crate) fn source_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { burst: 3.0, per_second: 2.0 };

    #[test]
    fn refuses_after_the_burst_and_refills() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, start);
        assert!((0..3).all(|_| bucket.take(RATE, 1.0, start)));
        assert!(!bucket.take(RATE, 1.0, start));
        assert!(!bucket.take(RATE, 1.0, start + Duration::from_millis(499)));
        assert!(bucket.take(RATE, 1.0, start + Duration::from_millis(501)));
    }

    #[test]
    fn one_source_does_not_use_up_anothers() {
        let start = Instant::now();
        let rates = SourceRates::new(RATE, 4096, start);
        let greedy: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour = "2001:db8::2".parse().unwrap();
        assert_eq!((0..100).filter(|_| rates.take(greedy, start)).count(), 3);
        assert!(!rates.take(neighbour, start), "one /64 is one source");
        let others = (0..64u8).filter(|n| rates.take(IpAddr::from([192, 0, 2, *n]), start)).count();
        assert!(others >= 60, "{others} of 64");
    }

    proptest! {
        #[test]
        fn never_gives_more_than_its_rate(steps in prop::collection::vec((0u64..500, 0u32..4), 0..200)) {
            let start = Instant::now();
            let (mut bucket, mut now, mut taken) = (Bucket::new(RATE, start), start, 0.0);
            for (later, amount) in steps {
                now += Duration::from_millis(later);
                taken += if bucket.take(RATE, amount.into(), now) { f64::from(amount) } else { 0.0 };
            }
            prop_assert!(taken <= RATE.burst + (now - start).as_secs_f64() * RATE.per_second + 1e-6);
        }
    }
}
