//! Who may begin a handshake: so many at once, of all and of one source, and so often.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::rate::{Rate, SourceRates, source_key};

/// Handshakes under way, of all.
pub(crate) const MAX_HALF_OPEN: usize = 512;
/// And of one source: room for a rack of hosts behind one NAT that start together.
const MAX_PER_SOURCE: usize = 64;
/// Handshakes of one source.
const RATE: Rate = Rate { burst: 256.0, per_second: 20.0 };
const SLOTS: usize = 4096;

/// The handshakes under way.
#[derive(Debug)]
pub(crate) struct Sources {
    rates: SourceRates,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// One handshake, until it is dropped.
#[derive(Debug)]
pub(crate) struct HalfOpen(Arc<Sources>, IpAddr);

impl Sources {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self { rates: SourceRates::new(RATE, SLOTS, now), open: Mutex::default() })
    }

    /// One more handshake; `None` when there may be none.
    pub(crate) fn begin(self: &Arc<Self>, source: IpAddr, now: Instant) -> Option<HalfOpen> {
        let key = source_key(source);
        if !self.rates.take(source, now) {
            return None;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= MAX_HALF_OPEN {
            return None;
        }
        let count = open.by_source.entry(key).or_default();
        if *count >= MAX_PER_SOURCE {
            return None;
        }
        *count += 1;
        open.total += 1;
        Some(HalfOpen(Arc::clone(self), key))
    }

    /// Whether so many are under way that a source should first show that it receives what is sent to it.
    pub(crate) fn is_busy(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).total > MAX_HALF_OPEN / 4
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(count) = open.by_source.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_source_and_in_all_and_given_back() {
        let now = Instant::now();
        let sources = Sources::new(now);
        let one: Vec<_> =
            std::iter::from_fn(|| sources.begin(IpAddr::from([192, 0, 2, 1]), now)).take(1000).collect();
        assert_eq!(one.len(), MAX_PER_SOURCE);
        let all: Vec<_> = (0..10_000u16)
            .filter_map(|n| sources.begin(IpAddr::from([10, 0, (n >> 8) as u8, n as u8]), now))
            .collect();
        assert_eq!(one.len() + all.len(), MAX_HALF_OPEN);
        assert!(sources.is_busy());
        drop((one, all));
        let open = sources.open.lock().unwrap();
        assert!(open.total == 0 && open.by_source.is_empty());
    }
}
