//! What of a packet decides whether it continues another.

use super::super::{ACK, PSH, TCP, TCP_CHECKSUM, UDP, UDP_CHECKSUM, UDP_HEADER, checksum, u16_at, u32_at};

/// A packet of TCP or UDP straight behind its IP header, and where its parts are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Candidate {
    pub(super) is_v4: bool,
    pub(super) protocol: u8,
    /// Where the transport header begins.
    pub(super) transport: usize,
    /// Bytes of both headers.
    pub(super) headers: usize,
    /// Bytes behind them.
    pub(super) payload: usize,
    /// It has payload, and nothing that must not be put together with others.
    pub(super) mergeable: bool,
    /// The sender has no more for now: the last of what is put together.
    pub(super) is_pushed: bool,
}

impl Candidate {
    /// `None` where no flow can be named: other protocols, fragments, IP options, what is cut short.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let (is_v4, transport, protocol, len) = match packet.first()? >> 4 {
            4 if packet.len() >= 20 && packet[0] == 0x45 && u16_at(packet, 6) & 0x3fff == 0 => {
                (true, 20, packet[9], usize::from(u16_at(packet, 2)))
            }
            6 if packet.len() >= 40 => (false, 40, packet[6], 40 + usize::from(u16_at(packet, 4))),
            _ => return None,
        };
        if len != packet.len() {
            return None;
        }
        let header = packet.get(transport..)?;
        let (header_len, mergeable, is_pushed) = match protocol {
            TCP if header.len() >= 20 => {
                let (len, flags) = (usize::from(header[12] >> 4) * 4, header[13]);
                let is_plain = flags & !PSH == ACK && header[12] & 15 == 0 && len >= 20;
                (len, is_plain, flags & PSH != 0)
            }
            // Without a checksum there is none to be made anew.
            UDP if header.len() >= UDP_HEADER => {
                let has_checksum = header[UDP_CHECKSUM..UDP_HEADER] != [0, 0];
                (UDP_HEADER, has_checksum && usize::from(u16_at(header, 4)) == header.len(), false)
            }
            _ => return None,
        };
        let payload = header.len().checked_sub(header_len)?;
        let (headers, mergeable) = (transport + header_len, mergeable && payload > 0);
        Some(Self { is_v4, protocol, transport, headers, payload, mergeable, is_pushed })
    }

    /// Whether the transport checksum is right.
    pub(super) fn is_intact(&self, packet: &[u8]) -> bool {
        let pseudo_header = checksum::pseudo_header(packet, self.transport, self.protocol);
        checksum::finish(pseudo_header + checksum::sum(&packet[self.transport..])) == 0
            && (!self.is_v4 || checksum::finish(checksum::sum(&packet[..self.transport])) == 0)
    }

    /// Whether `ours` and `packet` are between the same ports of the same addresses.
    pub(super) fn is_same_flow(&self, ours: &[u8], other: &Self, packet: &[u8]) -> bool {
        // The addresses stand before the ports in either version.
        let addresses = if self.is_v4 { 12 } else { 8 };
        self.is_v4 == other.is_v4
            && self.protocol == other.protocol
            && ours[addresses..self.transport + 4] == packet[addresses..self.transport + 4]
    }

    /// Whether `packet`, of the same flow and mergeable, comes next after the `count` that `ours` has, and differs only in
    /// what is made anew: lengths, checksums, IP identification, sequence number, the push flag.
    pub(super) fn is_continued(&self, ours: &[u8], count: usize, next: &Self, packet: &[u8]) -> bool {
        let same = |from: usize, to: usize| ours[from..to] == packet[from..to];
        let ip = if self.is_v4 {
            same(0, 2) && same(6, 9) && u16_at(ours, 4).wrapping_add(count as u16) == u16_at(packet, 4)
        } else {
            same(0, 4) && same(7, 8)
        };
        let at = self.transport;
        ip && self.headers == next.headers
            && (self.protocol == UDP || {
                let sent = (ours.len() - self.headers) as u32;
                u32_at(ours, at + 4).wrapping_add(sent) == u32_at(packet, at + 4)
                    && same(at + 8, at + 13)
                    && same(at + 14, at + TCP_CHECKSUM)
                    && same(at + TCP_CHECKSUM + 2, self.headers)
            })
    }
}
