//! The four messages (sections 5.4.2, 5.4.3, 5.4.6 and 5.4.7 of the paper). Numbers are little-endian.
//!
//! ```text
//!   initiation  0 type 1 │ 4 sender │  8 ephemeral │ 40 static │ 88 timestamp │ 116 mac1 │ 132 mac2 │ 148
//!   response    0 type 2 │ 4 sender │  8 receiver  │ 12 ephemeral │ 44 empty  │  60 mac1 │  76 mac2 │ 92
//!   cookie      0 type 3 │ 4 receiver │ 8 nonce    │ 32 cookie                                       │ 64
//!   data        0 type 4 │ 4 receiver │ 8 counter  │ 16 packet …                         │ tag of 16 bytes
//! ```

use std::ops::Range;

pub(crate) const INITIATION_LEN: usize = 148;
pub(crate) const RESPONSE_LEN: usize = 92;
pub(crate) const COOKIE_REPLY_LEN: usize = 64;
pub(crate) const DATA_HEADER_LEN: usize = 16;
/// What encryption adds to a padded packet: header and tag.
pub(crate) const DATA_OVERHEAD: usize = DATA_HEADER_LEN + 16;

/// Bytes of `mac1` and `mac2` together, which end both handshake messages.
pub(crate) const MACS_LEN: usize = 32;

const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;
const DATA: u8 = 4;

/// Where the fields of an initiation are.
pub(crate) mod initiation {
    use super::Range;
    pub(crate) const EPHEMERAL: Range<usize> = 8..40;
    pub(crate) const STATIC: Range<usize> = 40..88;
    pub(crate) const TIMESTAMP: Range<usize> = 88..116;
}

/// Where the fields of a response are.
pub(crate) mod response {
    use super::Range;
    pub(crate) const EPHEMERAL: Range<usize> = 12..44;
    pub(crate) const EMPTY: Range<usize> = 44..60;
}

/// Where the fields of a cookie reply are.
pub(crate) mod cookie_reply {
    use super::Range;
    pub(crate) const NONCE: Range<usize> = 8..32;
    pub(crate) const COOKIE: Range<usize> = 32..64;
}

/// A datagram that has the form of a message; nothing of it is authenticated yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Initiation(&'a [u8; INITIATION_LEN]),
    Response(&'a [u8; RESPONSE_LEN]),
    CookieReply(&'a [u8; COOKIE_REPLY_LEN]),
    Data { receiver: u32, counter: u64 },
}

impl<'a> Message<'a> {
    /// `None` for what is no message of this protocol, or not as long as its type says.
    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (head, _) = datagram.split_first_chunk::<4>()?;
        match *head {
            [DATA, 0, 0, 0] if datagram.len() >= DATA_OVERHEAD => {
                let counter = datagram[8..16].try_into().ok()?;
                Some(Self::Data { receiver: u32_at(datagram, 4), counter: u64::from_le_bytes(counter) })
            }
            [INITIATION, 0, 0, 0] => datagram.try_into().ok().map(Self::Initiation),
            [RESPONSE, 0, 0, 0] => datagram.try_into().ok().map(Self::Response),
            [COOKIE_REPLY, 0, 0, 0] => datagram.try_into().ok().map(Self::CookieReply),
            _ => None,
        }
    }
}

/// The number at `at`; the caller knows that it is there.
pub(crate) fn u32_at(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
}

/// An initiation without its encrypted parts.
pub(crate) fn new_initiation(sender: u32) -> [u8; INITIATION_LEN] {
    let mut message = [0; INITIATION_LEN];
    message[0] = INITIATION;
    message[4..8].copy_from_slice(&sender.to_le_bytes());
    message
}

/// A response without its encrypted parts.
pub(crate) fn new_response(sender: u32, receiver: u32) -> [u8; RESPONSE_LEN] {
    let mut message = [0; RESPONSE_LEN];
    message[0] = RESPONSE;
    message[4..8].copy_from_slice(&sender.to_le_bytes());
    message[8..12].copy_from_slice(&receiver.to_le_bytes());
    message
}

/// A cookie reply without its encrypted part.
pub(crate) fn new_cookie_reply(receiver: u32, nonce: &[u8; 24]) -> [u8; COOKIE_REPLY_LEN] {
    let mut message = [0; COOKIE_REPLY_LEN];
    message[0] = COOKIE_REPLY;
    message[4..8].copy_from_slice(&receiver.to_le_bytes());
    message[cookie_reply::NONCE].copy_from_slice(nonce);
    message
}

/// Writes the header of a data message.
pub(crate) fn write_data_header(room: &mut [u8], receiver: u32, counter: u64) {
    room[..4].copy_from_slice(&[DATA, 0, 0, 0]);
    room[4..8].copy_from_slice(&receiver.to_le_bytes());
    room[8..16].copy_from_slice(&counter.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_length_of_its_type_and_zeros_behind_it() {
        let lens = |kind: u8, third: u8| {
            let message = |len| [&[kind, 0, third, 0][..], &vec![9; len]].concat();
            (0..200)
                .filter(|len| Message::parse(&message(*len)).is_some())
                .map(|len| len + 4)
                .collect::<Vec<_>>()
        };
        assert_eq!(lens(1, 0), [148]);
        assert_eq!(lens(2, 0), [92]);
        assert_eq!(lens(3, 0), [64]);
        assert_eq!(lens(4, 0), (32..204).collect::<Vec<_>>());
        assert!((0..=255).all(|kind| lens(kind, 1).is_empty()));
        assert!([0, 5, 255].iter().all(|kind| lens(*kind, 0).is_empty()));
        assert_eq!(Message::parse(&[]), None);
    }

    #[test]
    fn a_data_header_reads_as_it_was_written() {
        let mut room = [7; DATA_OVERHEAD];
        write_data_header(&mut room, 0xa1b2_c3d4, u64::MAX - 1);
        let expected = Message::Data { receiver: 0xa1b2_c3d4, counter: u64::MAX - 1 };
        assert_eq!(Message::parse(&room), Some(expected));
    }
}
