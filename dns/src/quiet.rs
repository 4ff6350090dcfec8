//! Refusals are told once in a while, not each time: an agent must not be able to fill the record.

use std::{collections::HashSet, time::Instant};

use crate::{
    Why,
    limits::{MAX_REFUSALS, REFUSAL_QUIET},
};

/// What was told since the last [`REFUSAL_QUIET`] began.
#[derive(Debug)]
pub(crate) struct Quiet {
    since: Instant,
    told: HashSet<(String, Why)>,
}

/// Whether to tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    Yes,
    /// It was told already.
    Known,
    /// So much was told that this is not.
    TooMany,
}

impl Quiet {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, told: HashSet::new() }
    }

    /// Notes that `name` was refused.
    pub(crate) fn note(&mut self, name: &str, why: Why, now: Instant) -> Tell {
        if now.saturating_duration_since(self.since) >= REFUSAL_QUIET {
            self.since = now;
            self.told.clear();
        }
        let key = (name.to_owned(), why);
        if self.told.contains(&key) {
            return Tell::Known;
        }
        if self.told.len() >= MAX_REFUSALS {
            return Tell::TooMany;
        }
        self.told.insert(key);
        Tell::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_second_and_no_more_than_the_table_holds() {
        let now = Instant::now();
        let mut quiet = Quiet::new(now);
        assert_eq!(quiet.note("a.com", Why::Unknown, now), Tell::Yes);
        assert_eq!(quiet.note("a.com", Why::Unknown, now), Tell::Known);
        assert_eq!(quiet.note("a.com", Why::Type, now), Tell::Yes);
        for index in 2..MAX_REFUSALS {
            assert_eq!(quiet.note(&index.to_string(), Why::Unknown, now), Tell::Yes);
        }
        assert_eq!(quiet.note("b.com", Why::Unknown, now), Tell::TooMany);
        assert_eq!(quiet.note("a.com", Why::Unknown, now), Tell::Known);
        let later = now + REFUSAL_QUIET;
        assert_eq!(quiet.note("a.com", Why::Unknown, later), Tell::Yes);
        assert_eq!(quiet.note("b.com", Why::Unknown, later), Tell::Yes);
    }
}
