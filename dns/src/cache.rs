//! Answers of nameservers, for as long as they said, in bounded memory. What the agent may be told of one is decided anew
//! each time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    answer::Outcome,
    limits::{MAX_CACHE, NEGATIVE_CACHE, POSITIVE_CACHE},
    question::Question,
};

#[derive(Debug, Default)]
pub(crate) struct Cache(HashMap<Question, Entry>);

#[derive(Debug)]
struct Entry {
    outcome: Outcome,
    until: Instant,
}

impl Cache {
    /// Remembers `outcome`, unless it is a failure or not to be remembered.
    pub(crate) fn put(&mut self, question: &Question, outcome: &Outcome, now: Instant) {
        let lifetime = match outcome {
            Outcome::Addresses { ttl, .. } => (*ttl).min(POSITIVE_CACHE),
            Outcome::Nothing | Outcome::NoName => NEGATIVE_CACHE,
            Outcome::Failed => Duration::ZERO,
        };
        if lifetime.is_zero() {
            return;
        }
        if self.0.len() >= MAX_CACHE {
            self.make_room(now);
        }
        self.0.insert(question.clone(), Entry { outcome: outcome.clone(), until: now + lifetime });
    }

    /// What is remembered, with what is left of its time to live in whole seconds.
    pub(crate) fn get(&self, question: &Question, now: Instant) -> Option<Outcome> {
        let entry = self.0.get(question)?;
        let left = Duration::from_secs(entry.until.checked_duration_since(now)?.as_secs());
        match &entry.outcome {
            _ if entry.until <= now => None,
            Outcome::Addresses { .. } if left.is_zero() => None,
            Outcome::Addresses { addresses, .. } => {
                Some(Outcome::Addresses { addresses: addresses.clone(), ttl: left })
            }
            other => Some(other.clone()),
        }
    }

    /// What is over goes; when nothing is, an eighth does, the nearest to its end first. So many at once, because a search for
    /// each new answer would cost more than what it saves.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, entry| entry.until > now);
        if self.0.len() >= MAX_CACHE {
            let mut ends: Vec<Instant> = self.0.values().map(|entry| entry.until).collect();
            let (_, last_to_go, _) = ends.select_nth_unstable(MAX_CACHE / 8);
            self.0.retain(|_, entry| entry.until > *last_to_go);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::Kind;

    fn question(index: usize) -> Question {
        Question { name: format!("n{index}.example.com"), kind: Kind::A }
    }

    fn addresses(seconds: u64) -> Outcome {
        let addresses = vec!["192.0.2.1".parse().unwrap()];
        Outcome::Addresses { addresses, ttl: Duration::from_secs(seconds) }
    }

    #[test]
    fn answers_grow_old_and_end() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        cache.put(&question(1), &addresses(60), start);
        assert_eq!(cache.get(&question(1), at(20)), Some(addresses(40)));
        assert_eq!(cache.get(&question(1), at(60)), None);
        cache.put(&question(2), &Outcome::NoName, start);
        assert_eq!(cache.get(&question(2), start), Some(Outcome::NoName));
        assert_eq!(cache.get(&question(2), start + NEGATIVE_CACHE), None);
        cache.put(&question(3), &addresses(100_000), start);
        assert_eq!(cache.get(&question(3), start + POSITIVE_CACHE), None, "the time is bounded");
        for (index, never) in [addresses(0), Outcome::Failed].into_iter().enumerate() {
            cache.put(&question(4 + index), &never, start);
            assert_eq!(cache.get(&question(4 + index), start), None);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for index in 0..3 * MAX_CACHE {
            cache.put(&question(index), &addresses(60), now + Duration::from_millis(index as u64));
            assert!(cache.0.len() <= MAX_CACHE);
        }
        let last = 3 * MAX_CACHE - 1;
        assert!(cache.get(&question(last), now + Duration::from_millis(last as u64)).is_some());
    }
}
