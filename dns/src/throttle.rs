//! How much may be asked of nameservers. A permitted name is still a letter that its owner reads.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use crate::{
    Why,
    limits::{
        MAX_NAMES, MAX_WILDCARD_LABELS, MAX_WILDCARD_OCTETS, MAX_WILDCARD_RULES, NAME_BURST, NAME_PER_SECOND,
        QUERIES_BURST, QUERIES_PER_SECOND, WILDCARD_NAMES, WILDCARD_WINDOW,
    },
};

/// All that was asked lately.
#[derive(Debug)]
pub(crate) struct Throttle {
    total: Bucket,
    names: HashMap<String, Bucket>,
    wildcards: HashMap<u32, Window>,
}

impl Throttle {
    pub(crate) fn new(now: Instant) -> Self {
        Self { total: Bucket::full(QUERIES_BURST, now), names: HashMap::new(), wildcards: HashMap::new() }
    }

    /// Whether `name` may be asked now, and notes it. `wildcard` is the rule that allows it, when it is one.
    pub(crate) fn take(&mut self, name: &str, wildcard: Option<u32>, now: Instant) -> Result<(), Why> {
        if let Some(rule) = wildcard {
            if name.len() > MAX_WILDCARD_OCTETS || name.split('.').count() > MAX_WILDCARD_LABELS {
                return Err(Why::WildcardLength);
            }
            self.take_wildcard(name, rule, now)?;
        }
        self.take_name(name, now)?;
        if self.total.take(QUERIES_BURST, QUERIES_PER_SECOND, now) { Ok(()) } else { Err(Why::TotalRate) }
    }

    fn take_wildcard(&mut self, name: &str, rule: u32, now: Instant) -> Result<(), Why> {
        if !self.wildcards.contains_key(&rule) && self.wildcards.len() >= MAX_WILDCARD_RULES {
            self.wildcards.retain(|_, window| !window.is_over(now));
            if self.wildcards.len() >= MAX_WILDCARD_RULES {
                return Err(Why::WildcardNames);
            }
        }
        let window = self.wildcards.entry(rule).or_insert_with(|| Window::new(now));
        if window.is_over(now) {
            *window = Window::new(now);
        }
        if window.names.contains(name) {
            return Ok(());
        }
        if window.names.len() >= WILDCARD_NAMES {
            return Err(Why::WildcardNames);
        }
        window.names.insert(name.to_owned());
        Ok(())
    }

    fn take_name(&mut self, name: &str, now: Instant) -> Result<(), Why> {
        if !self.names.contains_key(name) && self.names.len() >= MAX_NAMES {
            // A full bucket is the same as none.
            self.names.retain(|_, bucket| !bucket.is_full(NAME_BURST, NAME_PER_SECOND, now));
            if self.names.len() >= MAX_NAMES {
                return Err(Why::NameRate);
            }
        }
        let bucket = self.names.entry(name.to_owned()).or_insert_with(|| Bucket::full(NAME_BURST, now));
        if bucket.take(NAME_BURST, NAME_PER_SECOND, now) { Ok(()) } else { Err(Why::NameRate) }
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(burst: u32, now: Instant) -> Self {
        Self { tokens: burst.into(), at: now }
    }

    fn refilled(&self, burst: u32, per_second: u32, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + elapsed * f64::from(per_second)).min(burst.into())
    }

    fn is_full(&self, burst: u32, per_second: u32, now: Instant) -> bool {
        self.refilled(burst, per_second, now) >= f64::from(burst)
    }

    fn take(&mut self, burst: u32, per_second: u32, now: Instant) -> bool {
        self.tokens = self.refilled(burst, per_second, now);
        self.at = now;
        let taken = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(taken));
        taken
    }
}

/// The different names of one rule within a time.
#[derive(Debug)]
struct Window {
    since: Instant,
    names: HashSet<String>,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { since: now, names: HashSet::new() }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WILDCARD_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_under_a_wildcard_are_short_and_few() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let long = format!("{}.{}.example.com", "a".repeat(60), "b".repeat(60));
        let deep = format!("{}com", "a.".repeat(MAX_WILDCARD_LABELS));
        for bad in [&long, &deep] {
            assert_eq!(throttle.take(bad, Some(1), start), Err(Why::WildcardLength), "{bad}");
            assert_eq!(throttle.take(bad, None, start), Ok(()), "a rule names it");
        }
        // A second apart, so that only the number of names can be the reason.
        let at = |index: usize| start + Duration::from_millis(900) * u32::try_from(index).unwrap();
        for index in 0..WILDCARD_NAMES {
            assert_eq!(throttle.take(&format!("n{index}.example.com"), Some(1), at(index)), Ok(()));
        }
        let now = at(WILDCARD_NAMES);
        assert_eq!(throttle.take("more.example.com", Some(1), now), Err(Why::WildcardNames));
        assert_eq!(throttle.take("n0.example.com", Some(1), now), Ok(()), "known");
        assert_eq!(throttle.take("more.example.org", Some(2), now), Ok(()), "another rule");
        assert_eq!(throttle.take("more.example.com", Some(1), start + WILDCARD_WINDOW), Ok(()));
    }

    #[test]
    fn a_name_and_all_names_have_a_rate() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        for _ in 0..NAME_BURST {
            assert_eq!(throttle.take("a.com", None, start), Ok(()));
        }
        assert_eq!(throttle.take("a.com", None, start), Err(Why::NameRate));
        for index in NAME_BURST..QUERIES_BURST {
            assert_eq!(throttle.take(&format!("n{index}.com"), None, start), Ok(()));
        }
        assert_eq!(throttle.take("b.com", None, start), Err(Why::TotalRate));
        let later = start + Duration::from_secs(1);
        assert_eq!(throttle.take("a.com", None, later), Ok(()));
        assert_eq!(throttle.take("b.com", None, later), Ok(()));
    }

    #[test]
    fn memory_is_bounded() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        for index in 0..2 * MAX_NAMES {
            let _ = throttle.take(&format!("n{index}.com"), u32::try_from(index).ok(), start);
            assert!(throttle.names.len() <= MAX_NAMES);
            assert!(throttle.wildcards.len() <= MAX_WILDCARD_RULES);
        }
        assert_eq!(throttle.take("x.com", Some(u32::MAX), start), Err(Why::WildcardNames));
        assert!(throttle.take("x.com", Some(u32::MAX), start + WILDCARD_WINDOW).is_ok());
    }
}
