//! Token buckets per key, in bounded memory. Takes the time as an argument.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One token bucket per key.
#[derive(Debug)]
pub struct RateLimiter<K> {
    burst: f64,
    per_second: f64,
    capacity: usize,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl<K: Eq + Hash + Clone> RateLimiter<K> {
    /// Allows each key `burst` takes at once and `per_second` in the long run, and remembers at most `capacity` keys.
    pub fn new(burst: u32, per_second: impl Into<f64>, capacity: usize) -> Self {
        Self { burst: burst.into(), per_second: per_second.into(), capacity, buckets: Mutex::default() }
    }

    /// Takes one token of `key`.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if !buckets.contains_key(key) && buckets.len() >= self.capacity {
            self.make_room(&mut buckets, now);
        }
        let bucket = buckets.entry(key.clone()).or_insert(Bucket { tokens: self.burst, at: now });
        bucket.tokens = self.refilled(bucket, now);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_second))
        }
    }

    /// A full bucket is the same as none. When none is full, an eighth goes, the longest untouched first: they are the
    /// nearest to full. So many at once, because a search for each new key would cost more than what it is to prevent.
    fn make_room(&self, buckets: &mut HashMap<K, Bucket>, now: Instant) {
        buckets.retain(|_, bucket| self.refilled(bucket, now) < self.burst);
        if buckets.len() >= self.capacity {
            let mut times: Vec<Instant> = buckets.values().map(|bucket| bucket.at).collect();
            let (_, last_to_go, _) = times.select_nth_unstable(self.capacity / 8);
            buckets.retain(|_, bucket| bucket.at > *last_to_go);
        }
    }

    fn refilled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + elapsed * self.per_second).min(self.burst)
    }
}

/// The key under which a remote address is counted. An IPv6 host owns its /64, so that is what counts.
pub fn remote_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_after_the_burst_and_refills() {
        let limiter = RateLimiter::new(3, 2, 10);
        let start = Instant::now();
        for _ in 0..3 {
            assert!(limiter.take(&"a", start).is_ok());
        }
        assert_eq!(limiter.take(&"a", start), Err(Duration::from_millis(500)));
        assert!(limiter.take(&"b", start).is_ok(), "keys do not share");
        assert!(limiter.take(&"a", start + Duration::from_millis(500)).is_ok());
    }

    #[test]
    fn remembers_no_more_than_its_capacity_and_forgets_the_oldest() {
        let limiter = RateLimiter::new(1, 1, 2);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(limiter.take(&1, at(0)).is_ok());
        assert!(limiter.take(&2, at(1)).is_ok());
        assert!(limiter.take(&3, at(2)).is_ok());
        assert_eq!(limiter.buckets.lock().unwrap().len(), 2);
        assert!(limiter.take(&2, at(3)).is_err(), "2 is still remembered");
    }

    proptest! {
        /// A key that keeps coming is not forgotten, however many others come: it gains nothing by their noise.
        #[test]
        fn stays_within_its_capacity_and_its_rate(others in prop::collection::vec((0u16..1000, 1u64..100), 0..300)) {
            let (limiter, start) = (RateLimiter::new(2, 1, 16), Instant::now());
            let (mut now, mut taken) = (start, 0.0);
            for (key, later) in others {
                now += Duration::from_millis(later);
                let _ = limiter.take(&key, now);
                taken += f64::from(u8::from(limiter.take(&u16::MAX, now).is_ok()));
                prop_assert!(limiter.buckets.lock().unwrap().len() <= 16);
            }
            prop_assert!(taken <= 2.0 + (now - start).as_secs_f64() + 1e-6);
        }
    }

    #[test]
    fn addresses_of_one_ipv6_host_share_a_bucket() {
        let key = |text: &str| remote_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }
}
