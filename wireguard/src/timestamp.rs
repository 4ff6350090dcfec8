//! TAI64N (section 5.1 of the paper, cr.yp.to/libtai/tai64.html): twelve bytes that sort as the times that they stand for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 1970 in TAI64, as all of WireGuard counts it.
const EPOCH: u64 = (1 << 62) + 10;

/// The low bits of the nanoseconds, 16.8 ms in all, are left out: an exact clock would be a side channel. A peer takes no
/// two initiations in so short a time anyway. So does the kernel's WireGuard.
const WHITENED: u32 = (1 << 24) - 1;

/// The time of an initiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(pub(crate) [u8; 12]);

impl Timestamp {
    /// The time `wall`, or if that is not after `last`, the least that is.
    pub(crate) fn after(last: Option<Self>, wall: SystemTime) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let time = Self::new(EPOCH.saturating_add(since.as_secs()), since.subsec_nanos() & !WHITENED);
        last.filter(|last| time <= *last).map_or(time, Self::next)
    }

    fn new(seconds: u64, nanoseconds: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanoseconds.to_be_bytes());
        Self(bytes)
    }

    fn next(self) -> Self {
        let [seconds @ .., a, b, c, d] = self.0;
        match u32::from_be_bytes([a, b, c, d]) + 1 {
            1_000_000_000 => Self::new(u64::from_be_bytes(seconds) + 1, 0),
            nanoseconds => Self::new(u64::from_be_bytes(seconds), nanoseconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_the_labels_of_the_specification() {
        let at =
            |seconds, nanoseconds| Timestamp::after(None, UNIX_EPOCH + Duration::new(seconds, nanoseconds)).0;
        assert_eq!(at(0, 0), [0x40, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0]);
        assert_eq!(at(0x2a2b_2c2d, 0x1234_5678), [0x40, 0, 0, 0, 0x2a, 0x2b, 0x2c, 0x37, 0x12, 0, 0, 0]);
        let before = Timestamp::after(None, UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(before.0, at(0, 0), "a clock that is not set");
    }

    proptest! {
        #[test]
        fn grows_whatever_the_clock_does(times in prop::collection::vec((0u64..3, 0u32..1_000_000_000), 1..50)) {
            let mut last = Some(Timestamp::new(EPOCH + 1, 999_999_998));
            for (seconds, nanoseconds) in times {
                let next = Timestamp::after(last, UNIX_EPOCH + Duration::new(seconds, nanoseconds));
                prop_assert!(Some(next) > last);
                prop_assert!(u32::from_be_bytes(next.0[8..].try_into().unwrap()) < 1_000_000_000);
                last = Some(next);
            }
        }
    }
}
