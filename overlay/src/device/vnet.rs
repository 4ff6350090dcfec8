//! Many packets in one: what a TUN device with `IFF_VNET_HDR` hands over and takes
//! (<https://docs.oasis-open.org/virtio/virtio/v1.3/virtio-v1.3.html>, 5.1.6.1; `linux/virtio_net.h`).
//!
//! ```text
//!   read:   one TCP segment or UDP datagram of up to 64 KiB  ─►  Segments  ─►  packets of the link's MTU
//!   write:  packets of one flow, in sequence and alike       ─►  Coalescer ─►  one that the kernel may keep whole
//! ```
//!
//! Most of what a packet costs the kernel it costs once, however long the packet. So it is cut where it is sealed, and put
//! together where it is opened, by the rules of the kernel's own GSO and GRO: cutting what was put together gives the same
//! packets again. Pure: bytes in, bytes out.

pub(crate) mod checksum;
pub(crate) mod coalesce;
pub(crate) mod segments;

pub(crate) use coalesce::Coalescer;
pub(crate) use segments::{Frame, Segments};

/// The largest packet that an IP header can describe: of IPv6, whose length leaves the header out.
pub(crate) const MAX_PACKET: usize = 40 + 65_535;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const UDP_HEADER: usize = 8;

/// Where the checksum stands in a TCP and in a UDP header.
pub(crate) const TCP_CHECKSUM: usize = 16;
pub(crate) const UDP_CHECKSUM: usize = 6;

/// TCP's flags, in byte 13 of its header (RFC 9293, 3.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
pub(crate) const CWR: u8 = 0x80;

/// The checksum is the pseudo-header's alone, and to be completed (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub(crate) const NEEDS_CHECKSUM: u8 = 1;

/// `struct virtio_net_hdr`, in the byte order of this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flags: u8,
    /// What the packet is to be cut into; 0 for nothing.
    pub(crate) kind: u8,
    /// Bytes of all headers. A hint only.
    pub(crate) headers: u16,
    /// Payload of each packet but the last, in bytes.
    pub(crate) segment: u16,
    /// Where the transport header begins, from the IP header on.
    pub(crate) checksum_start: u16,
    /// Where its checksum stands, from there on.
    pub(crate) checksum_offset: u16,
}

impl Header {
    /// Bytes of it.
    pub(crate) const LEN: usize = 10;

    /// Not to be cut.
    pub(crate) const WHOLE: u8 = 0;
    /// TCP in IPv4.
    pub(crate) const TCP_V4: u8 = 1;
    /// TCP in IPv6.
    pub(crate) const TCP_V6: u8 = 4;
    /// UDP datagrams, in either (`VIRTIO_NET_HDR_GSO_UDP_L4`, Linux 6.2).
    pub(crate) const UDP_DATAGRAMS: u8 = 5;
    /// A mark on either of TCP: it has ECN's flags.
    pub(crate) const ECN: u8 = 0x80;

    pub(crate) fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let word = |at| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            kind: bytes[1],
            headers: word(2),
            segment: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }

    /// How many packets one of `len` bytes stands for.
    pub(crate) fn count(&self, len: usize) -> u64 {
        let payload = len.saturating_sub(self.headers.into());
        if self.segment == 0 { 1 } else { payload.div_ceil(self.segment.into()) as u64 }
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [self.flags, self.kind, 0, 0, 0, 0, 0, 0, 0, 0];
        let words = [self.headers, self.segment, self.checksum_start, self.checksum_offset];
        for (at, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            at.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// The number at `at`, which must be there.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The number at `at`, which must be there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes the length of a packet, `transport` bytes of which are its IP header with extensions, into that header, and the
/// header's checksum where it has one. The packet is at most [`MAX_PACKET`] long, and one of IPv4 65,535.
pub(crate) fn set_ip_length(packet: &mut [u8], transport: usize, len: usize) {
    if packet[0] >> 4 == 4 {
        put_u16(packet, 2, len as u16);
        packet[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(&packet[..transport]));
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
    } else {
        put_u16(packet, 4, (len - 40) as u16);
    }
}

#[cfg(test)]
mod tests;
