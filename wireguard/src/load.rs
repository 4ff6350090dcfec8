//! How many handshakes are taken on in a second, whoever sends them.

use std::time::{Duration, Instant};

/// Handshake messages in a second from which on senders must prove their address with a cookie first (WireGuard white
/// paper section 5.3). One costs about 0.1 ms: these, 5 % of a core.
const COOKIES_FROM: u32 = 512;

/// Handshake messages in a second beyond which they are dropped unread. It bounds what the cookie bookkeeping, one
/// entry per source address and second, can grow to.
const MAX: u32 = 16_384;

/// What to do with a handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Normal,
    WithCookie,
    Refused,
}

/// Counts handshake messages per second.
pub(crate) struct Load {
    since: Instant,
    count: u32,
}

impl Load {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        if self.count > MAX {
            Admission::Refused
        } else if self.count > COOKIES_FROM {
            Admission::WithCookie
        } else {
            Admission::Normal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_costs_cookies_then_nothing_and_passes() {
        let start = Instant::now();
        let mut load = Load::new(start);
        let mut seen = [0; 3];
        for _ in 0..2 * MAX {
            seen[load.admit(start) as usize] += 1;
        }
        assert_eq!(seen, [COOKIES_FROM, MAX - COOKIES_FROM, MAX]);
        assert_eq!(load.admit(start + Duration::from_secs(1)), Admission::Normal);
    }
}
