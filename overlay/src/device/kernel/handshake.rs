//! What WireGuard's messages are, by their look, and when an initiation that nobody answered is sent again. Pure.

use std::time::{Duration, Instant};

/// After the first time. The kernel makes another one after 5 s.
const SCHEDULE: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(350),
    Duration::from_millis(750),
    Duration::from_millis(1500),
    Duration::from_millis(3000),
];
/// So long it may be sent by a path that is found meanwhile.
const LIFE: Duration = Duration::from_secs(5);

/// A message of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// Begins a handshake.
    Initiation(&'a [u8; Message::INITIATION]),
    /// With a packet in it.
    Packet,
    /// An answer, or a keepalive.
    Other,
}

impl<'a> Message<'a> {
    /// The length of an initiation.
    pub(super) const INITIATION: usize = 148;
    /// The length of data without a packet.
    const KEEPALIVE: usize = 32;

    /// `None` for what is none of WireGuard's.
    pub(super) fn of(datagram: &'a [u8]) -> Option<Self> {
        match (datagram.first_chunk()?, datagram.len()) {
            ([1, 0, 0, 0], Self::INITIATION) => Some(Self::Initiation(datagram.first_chunk()?)),
            ([4, 0, 0, 0], len) if len > Self::KEEPALIVE => Some(Self::Packet),
            ([2..=4, 0, 0, 0], _) => Some(Self::Other),
            _ => None,
        }
    }

    /// Whether somebody has something to say to the peer.
    pub(super) fn is_wish(self) -> bool {
        self != Self::Other
    }
}

/// An initiation that may have been lost, or met a peer that does not know us yet. The same bytes are safe to send again: who took the
/// first takes the next for a replay.
#[derive(Debug)]
pub(super) struct Initiation {
    bytes: [u8; Message::INITIATION],
    since: Instant,
    repeated: usize,
    /// There is another path since it was last sent.
    again: Option<Instant>,
}

impl Initiation {
    /// One that was just sent.
    pub(super) fn new(bytes: [u8; Message::INITIATION], now: Instant) -> Self {
        Self { bytes, since: now, repeated: 0, again: None }
    }

    /// Has it sent once more, now.
    pub(super) fn again(&mut self, now: Instant) {
        self.again = Some(now);
    }

    /// When it is to be sent again, or forgotten; `None` when it is too old.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = SCHEDULE.get(self.repeated).map_or(self.since + LIFE, |after| self.since + *after);
        (self.repeated <= SCHEDULE.len()).then(|| self.again.map_or(next, |again| again.min(next)))
    }

    /// The initiation, if it is due. However late the call, what was missed is not made up for.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<[u8; Message::INITIATION]> {
        if self.due()? > now {
            return None;
        }
        let age = now.saturating_duration_since(self.since);
        self.repeated = SCHEDULE.iter().filter(|after| **after <= age).count();
        self.again = None;
        if age >= LIFE {
            self.repeated = SCHEDULE.len() + 1;
            return None;
        }
        Some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_known_by_type_and_length() {
        let of = |kind: u8, len: usize| {
            let mut bytes = vec![0; len];
            bytes[0] = kind;
            Message::of(&bytes).map(|message| (matches!(message, Message::Initiation(_)), message.is_wish()))
        };
        assert_eq!(of(1, 148), Some((true, true)));
        assert_eq!(of(4, 48), Some((false, true)));
        assert_eq!(of(4, 32), Some((false, false)), "a keepalive");
        assert_eq!(of(2, 92), Some((false, false)));
        for (kind, len) in [(1, 147), (0, 148), (5, 48)] {
            assert_eq!(of(kind, len), None);
        }
        assert_eq!(Message::of(&[1, 0, 0]), None);
        assert_eq!(Message::of(&[4, 0, 0, 1, 0]), None);
    }

    #[test]
    fn an_initiation_is_repeated_a_few_times_and_by_each_new_path_until_it_is_old() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut initiation = Initiation::new([7; 148], start);
        assert_eq!((initiation.take_due(start), initiation.due()), (None, Some(ms(50))));
        initiation.again(ms(10));
        assert_eq!((initiation.take_due(ms(10)), initiation.due()), (Some([7; 148]), Some(ms(50))));
        let mut sent = 0;
        while let Some(due) = initiation.due().filter(|_| sent < 99) {
            sent += usize::from(initiation.take_due(due).is_some());
        }
        assert_eq!((sent, initiation.take_due(ms(9000))), (6, None));
        let mut late = Initiation::new([7; 148], start);
        assert!(late.take_due(ms(2000)).is_some() && late.take_due(ms(2000)).is_none());
        assert_eq!(late.due(), Some(ms(3000)));
    }
}
