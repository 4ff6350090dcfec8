//! When a client that is connected by TCP tries QUIC again. Pure.
//!
//! Where UDP is blocked, or datagrams are sent that are longer than QUIC carries, that will be so for long: a try costs little, but the next
//! datagram that is too long. Where QUIC did carry full-size datagrams and then no more, what was lost may well have been
//! a flood's doing, which ends sooner.

use std::time::Duration;

/// The wait after QUIC did not come about at all, and after a datagram that was too large for it.
const FIRST: Duration = Duration::from_secs(600);
/// The wait after QUIC that was of use until then.
const AFTER_DOUBT: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(3600);

/// How long QUIC is held off. Each further try in vain doubles it.
#[derive(Debug)]
pub(super) struct HoldOff {
    now: Duration,
    doubt: Duration,
}

impl Default for HoldOff {
    fn default() -> Self {
        Self { now: FIRST, doubt: AFTER_DOUBT }
    }
}

impl HoldOff {
    /// The wait.
    pub(super) fn get(&self) -> Duration {
        self.now
    }

    /// QUIC is tried: should that be in vain, or not last, it was once more.
    pub(super) fn tried(&mut self) -> Duration {
        self.now = (self.now * 2).min(LONGEST);
        self.now
    }

    /// A datagram was too large.
    pub(super) fn too_large(&mut self) -> Duration {
        self.now = self.now.max(FIRST);
        self.now
    }

    /// QUIC had carried full-size datagrams for `lasted`, seemed to do so no more, or fell silent, and TCP took its place.
    pub(super) fn doubted(&mut self, lasted: Duration) {
        if lasted >= FIRST {
            self.doubt = AFTER_DOUBT;
        }
        self.now = self.doubt;
        self.doubt = (self.doubt * 2).min(FIRST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(waits: impl IntoIterator<Item = Duration>) -> Vec<u64> {
        waits.into_iter().map(|wait| wait.as_secs()).collect()
    }

    #[test]
    fn blocked_udp_and_large_datagrams_hold_quic_off_for_long() {
        let mut hold_off = HoldOff::default();
        assert_eq!(hold_off.get(), FIRST);
        assert_eq!(seconds((0..4).map(|_| hold_off.tried())), [1200, 2400, 3600, 3600]);
        let mut hold_off = HoldOff::default();
        hold_off.doubted(Duration::ZERO);
        assert_eq!(hold_off.too_large(), FIRST);
    }

    #[test]
    fn after_a_flood_quic_is_tried_soon_and_less_often_in_one_that_lasts() {
        let mut hold_off = HoldOff::default();
        let mut each = |lasted| {
            hold_off.doubted(lasted);
            hold_off.get()
        };
        assert_eq!(seconds((0..8).map(|_| each(FIRST / 2))), [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(each(FIRST), AFTER_DOUBT, "QUIC was of use for long");
        hold_off.doubted(FIRST);
        assert_eq!(seconds((0..9).map(|_| hold_off.tried())), [20, 40, 80, 160, 320, 640, 1280, 2560, 3600]);
    }
}
