//! One packet of the TUN device, cut into those that it stands for.

use lattice_wireguard::Packets;

use super::{
    CWR, FIN, Header, MAX_PACKET, NEEDS_CHECKSUM, PSH, RST, SYN, TCP, TCP_CHECKSUM, UDP, UDP_CHECKSUM,
    UDP_HEADER, URG, checksum, put_u16, set_ip_length, u16_at, u32_at,
};

/// Extension headers of IPv6 that may stand before TCP and UDP (RFC 8200, 4). A fragment is never cut.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// What one read yields.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    /// A packet, with its checksum.
    Packet(&'a [u8]),
    /// Several.
    Segments(Segments<'a>),
}

impl<'a> Frame<'a> {
    /// Reads what the TUN device gave: a [`Header`], and a packet, whose checksum is completed in place. `None` when the two
    /// do not fit together.
    pub(crate) fn read(bytes: &'a mut [u8]) -> Option<Self> {
        let (header, packet) = bytes.split_first_chunk_mut()?;
        let header = Header::from_bytes(header);
        if header.kind == Header::WHOLE {
            if header.flags & NEEDS_CHECKSUM != 0 {
                complete(packet, header)?;
            }
            return Some(Self::Packet(packet));
        }
        Segments::new(header, packet).map(Self::Segments)
    }
}

/// The sum of the pseudo-header is in the checksum's place already. The kernel leaves only those of TCP and UDP to do.
fn complete(packet: &mut [u8], header: Header) -> Option<()> {
    let (start, place) = checksum_of(packet, header)?;
    packet.get(start..start + place + 2)?;
    let sum = not_zero(checksum::finish(checksum::sum(&packet[start..])));
    packet[start + place..start + place + 2].copy_from_slice(&sum.to_ne_bytes());
    Some(())
}

/// Where the transport header begins, and where its checksum stands from there on, if that is also what `header` says. The
/// policy goes by the packet: were the device's word taken, what is written there might be the ports that were judged.
fn checksum_of(packet: &[u8], header: Header) -> Option<(usize, usize)> {
    let (protocol, start) = transport_of(packet)?;
    let place = match protocol {
        TCP => TCP_CHECKSUM,
        UDP => UDP_CHECKSUM,
        _ => return None,
    };
    let said = (usize::from(header.checksum_start), usize::from(header.checksum_offset));
    (header.flags & NEEDS_CHECKSUM != 0 && said == (start, place)).then_some(said)
}

/// For UDP zero means that there is no checksum; for all others the two are the same number (RFC 768).
fn not_zero(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

/// TCP segments or UDP datagrams that came as one, each made when it is asked for, where it is to be; the same ones that the
/// kernel would make (`tcp_gso_segment`, `__udp_gso_segment`).
#[derive(Debug)]
pub(crate) struct Segments<'a> {
    /// The headers of the first one, but for what [`Self::write`] writes into each, and the payload of all.
    packet: &'a [u8],
    headers: usize,
    transport: usize,
    is_tcp: bool,
    /// Payload of each but the last, in bytes.
    size: usize,
    /// Payload that was written already.
    written: usize,
    index: usize,
    done: bool,
    /// What the transport checksum begins with, less the length.
    seed: u64,
}

impl<'a> Segments<'a> {
    fn new(header: Header, packet: &'a mut [u8]) -> Option<Self> {
        let (transport, place) = checksum_of(packet, header)?;
        let is_tcp = match (header.kind & !Header::ECN, packet[0] >> 4, place) {
            (Header::TCP_V4, 4, TCP_CHECKSUM) | (Header::TCP_V6, 6, TCP_CHECKSUM) => true,
            (Header::UDP_DATAGRAMS, 4 | 6, UDP_CHECKSUM) => false,
            _ => return None,
        };
        if header.segment == 0 {
            return None;
        }
        let headers = transport + transport_header(packet.get(transport..)?, is_tcp)?;
        let size = usize::from(header.segment).min(packet.len().checked_sub(headers)?);

        // Its sum has the length of the whole, which the one's complement of that length takes away again.
        let partial = u16::from_ne_bytes([packet[transport + place], packet[transport + place + 1]]);
        let seed = u64::from(partial) + checksum::word(!(packet.len() - transport));
        packet[transport + place..transport + place + 2].fill(0);
        set_ip_length(packet, transport, headers + size);
        if !is_tcp {
            put_u16(packet, transport + 4, (UDP_HEADER + size) as u16);
        }
        Some(Self { packet, headers, transport, is_tcp, size, written: 0, index: 0, done: false, seed })
    }

    /// What one TCP segment of its own stands for where it is too long: it may be cut as well. `None` for what is no TCP segment, or one
    /// that must stay whole.
    pub(crate) fn of_one(packet: &'a [u8]) -> Option<Self> {
        let (protocol, transport) = transport_of(packet)?;
        // Behind extension headers the destination may be another one than the pseudo-header's.
        let is_plain = packet[0] >> 4 == 4 || transport == 40;
        if protocol != TCP || !is_plain || ip_length(packet) != packet.len() {
            return None;
        }
        let headers = transport + transport_header(packet.get(transport..)?, true)?;
        let size = packet.len() - headers;
        if packet[transport + 13] & (SYN | RST | URG) != 0 || size == 0 {
            return None;
        }
        let seed =
            checksum::pseudo_header(packet, transport, TCP) + checksum::word(!(packet.len() - transport));
        Some(Self { packet, headers, transport, is_tcp: true, size, written: 0, index: 0, done: false, seed })
    }

    /// Cuts TCP segments so that none makes a packet longer than `mtu`: their sender need not know of a way that is narrow for a while.
    /// Datagrams stay as they are. Before the first is written.
    pub(crate) fn cut_to(&mut self, mtu: usize) {
        if self.is_tcp && self.headers < mtu {
            self.size = self.size.min(mtu - self.headers);
        }
    }

    /// The first one, but for its transport checksum.
    pub(crate) fn first(&self) -> &[u8] {
        &self.packet[..self.headers + self.size]
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.payload().len().div_ceil(self.size.max(1)).max(1)
    }

    /// Bytes of all of them, each with its headers.
    pub(crate) fn bytes(&self) -> usize {
        self.count() * self.headers + self.payload().len()
    }

    fn payload(&self) -> &[u8] {
        &self.packet[self.headers..]
    }
}

/// The protocol of a packet that is no fragment, and where that protocol's header begins.
fn transport_of(packet: &[u8]) -> Option<(u8, usize)> {
    if packet.first()? >> 4 != 6 {
        let header: &[u8; 20] = packet.first_chunk()?;
        let (len, fragment) = (usize::from(header[0] & 15) * 4, u16_at(header, 6) & 0x3fff);
        return (header[0] >> 4 == 4 && len >= 20 && fragment == 0 && packet.len() <= 65_535)
            .then_some((header[9], len));
    }
    let (mut next, mut at) = (*packet.get(6)?, 40);
    while matches!(next, HOP_BY_HOP | ROUTING | DESTINATION) {
        (next, at) = (*packet.get(at)?, at + 8 + usize::from(*packet.get(at + 1)?) * 8);
    }
    (packet.len() <= MAX_PACKET).then_some((next, at))
}

/// The length that an IP header says, which is there.
fn ip_length(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { u16_at(packet, 2).into() } else { 40 + usize::from(u16_at(packet, 4)) }
}

/// The length of a header of TCP or UDP, if it is there as a whole.
fn transport_header(from: &[u8], is_tcp: bool) -> Option<usize> {
    let len = if is_tcp { usize::from(from.get(12)? >> 4) * 4 } else { UDP_HEADER };
    (len <= from.len() && (len >= 20 || !is_tcp)).then_some(len)
}

impl Packets for Segments<'_> {
    fn next_len(&self) -> Option<usize> {
        let left = self.payload().len() - self.written;
        (!self.done).then(|| self.headers + left.min(self.size))
    }

    fn head(&self) -> &[u8] {
        &self.packet[..self.headers]
    }

    fn write(&mut self, room: &mut [u8]) {
        let (transport, len) = (self.transport, room.len());
        let (head, body) = room.split_at_mut(self.headers);
        let end = self.written + body.len();
        head.copy_from_slice(&self.packet[..self.headers]);
        body.copy_from_slice(&self.payload()[self.written..end]);

        let (is_first, is_last) = (self.index == 0, end == self.payload().len());
        if head[0] >> 4 == 4 {
            let id = u16_at(head, 4).wrapping_add(self.index as u16);
            put_u16(head, 4, id);
        }
        set_ip_length(head, transport, len);
        let header = &mut room[transport..];
        let place = if self.is_tcp {
            let sequence = u32_at(header, 4).wrapping_add(self.written as u32);
            header[4..8].copy_from_slice(&sequence.to_be_bytes());
            header[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
            if !is_first {
                header[13] &= !CWR;
            }
            if !is_last {
                header[13] &= !(FIN | PSH);
            }
            TCP_CHECKSUM
        } else {
            put_u16(header, 4, (len - transport) as u16);
            UDP_CHECKSUM
        };
        let sum = checksum::finish(self.seed + checksum::word(len - transport) + checksum::sum(header));
        let sum = if self.is_tcp { sum } else { not_zero(sum) };
        header[place..place + 2].copy_from_slice(&sum.to_ne_bytes());

        self.index += 1;
        self.written = end;
        self.done = is_last;
    }
}
