//! TCP segments (RFC 9293, 3.1), as far as they must be understood before smoltcp gets them, and answers for which there is
//! no connection.

use std::net::IpAddr;

use crate::{Output, Run, checksum, ip, tuple::Tuple};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

pub(crate) const HEADER: usize = 20;
pub(crate) const MAX_HEADER: usize = 60;

/// Whether `a` is before `b` in the space of sequence numbers, which has no beginning.
pub(crate) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The fields of a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// Bytes of the header with its options.
    pub(crate) header: usize,
    /// Bytes of data.
    pub(crate) payload: usize,
}

impl Segment {
    /// Reads a segment. `None` when it cannot be one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; HEADER] = bytes.first_chunk()?;
        let header = usize::from(fixed[12] >> 4) * 4;
        let payload = bytes.len().checked_sub(header)?;
        let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
        let segment = Self {
            source_port: word(0),
            destination_port: word(2),
            sequence: long(4),
            acknowledgement: long(8),
            flags: fixed[13],
            window: word(14),
            header,
            payload,
        };
        (header >= HEADER && segment.source_port != 0 && segment.destination_port != 0).then_some(segment)
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it asks for a connection.
    pub(crate) fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// How much of the sequence space it takes.
    pub(crate) fn len(&self) -> u32 {
        self.payload as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    /// The first sequence number after it.
    pub(crate) fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.len())
    }
}

/// What a SYN says of its sender (RFC 9293, 3.1; RFC 7323, 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// The most data that it takes in a segment; 0 when it does not say.
    pub(crate) segment: u16,
    /// By how many bits its windows are shifted.
    pub(crate) scale: u8,
}

impl Options {
    /// Reads those of a header, up to one that cannot be.
    pub(crate) fn read(mut options: &[u8]) -> Self {
        let mut read = Self { segment: 0, scale: 0 };
        loop {
            match options {
                [1, rest @ ..] => options = rest,
                [kind, len, rest @ ..] if *kind != 0 && *len >= 2 && rest.len() >= usize::from(*len) - 2 => {
                    let (value, rest) = rest.split_at(usize::from(*len) - 2);
                    match (kind, value) {
                        (2, [high, low]) => read.segment = u16::from_be_bytes([*high, *low]),
                        (3, [scale]) => read.scale = (*scale).min(14),
                        _ => {}
                    }
                    options = rest;
                }
                _ => return read,
            }
        }
    }
}

/// A segment without data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
}

impl Answer {
    /// The reset that tells the sender of `segment` that there is no such connection (RFC 9293, 3.5.2).
    pub(crate) fn reset(segment: &Segment) -> Self {
        if segment.has(ACK) {
            Self { sequence: segment.acknowledgement, acknowledgement: 0, flags: RST, window: 0 }
        } else {
            Self { sequence: 0, acknowledgement: segment.end(), flags: RST | ACK, window: 0 }
        }
    }

    /// Sends it in a flow.
    pub(crate) fn send(self, tuple: &Tuple, out: &mut impl Output) {
        let mut packet = [0; ip::MAX_HEADER + HEADER];
        let (source, destination) = (tuple.local.ip(), tuple.remote.ip());
        let at = ip::write(&mut packet, source, destination, ip::TCP, HEADER);
        let segment = &mut packet[at..at + HEADER];
        segment[..2].copy_from_slice(&tuple.local.port().to_be_bytes());
        segment[2..4].copy_from_slice(&tuple.remote.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        segment[8..12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        (segment[12], segment[13]) = (0x50, self.flags);
        segment[14..16].copy_from_slice(&self.window.to_be_bytes());
        set_checksum(segment, source, destination);
        out.transmit(&mut Run::single(&packet[..at + HEADER]));
    }
}

/// Writes a segment's checksum.
pub(crate) fn set_checksum(segment: &mut [u8], source: IpAddr, destination: IpAddr) {
    segment[16..18].fill(0);
    let sum = checksum::pseudo_header(source, destination, ip::TCP, segment.len());
    let sum = checksum::finish(sum + checksum::sum(segment));
    segment[16..18].copy_from_slice(&sum);
}
