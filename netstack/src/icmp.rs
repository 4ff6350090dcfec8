//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echoes, and errors about what we sent.

use std::net::{IpAddr, SocketAddr};

use crate::{checksum, ip, tuple::Tuple};

const HEADER: usize = 8;

/// Of an error to a stranger, no more of its packet is sent back than fits with both headers into what every host takes.
const MAX_ERROR: usize = 576;

/// What an ICMP message is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// To be answered with the same data.
    EchoRequest,
    /// Something about a packet of ours, as far as it was sent back.
    Error(Problem),
    /// Nothing.
    Other,
}

/// What became of a packet of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Its flow; ports are 0 for what has none.
    pub(crate) tuple: Tuple,
    pub(crate) protocol: u8,
    /// Its sequence number, if it was of TCP.
    pub(crate) sequence: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Too long: what would not have been, in bytes.
    TooBig(u16),
    /// It cannot get there, with ICMP's code.
    Unreachable(u8),
}

impl Message {
    /// Reads the ICMP message of a packet, whose checksum is right.
    pub(crate) fn read(packet: &[u8], header: &ip::Header) -> Option<Self> {
        let message = &packet[header.transport..header.len];
        let fixed: &[u8; HEADER] = message.first_chunk()?;
        let is_v4 = header.protocol == ip::ICMP;
        let mtu = if is_v4 {
            u16::from_be_bytes([fixed[6], fixed[7]])
        } else {
            let long = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
            u16::try_from(long).unwrap_or(u16::MAX)
        };
        let kind = match (is_v4, fixed[0], fixed[1]) {
            (true, 8, 0) | (false, 128, 0) => return Some(Self::EchoRequest),
            (true, 3, 4) | (false, 2, _) => Kind::TooBig(mtu),
            (true, 3, code) | (false, 1, code) => Kind::Unreachable(code),
            _ => return Some(Self::Other),
        };
        let ours = &message[HEADER..];
        let about = ip::Header::read_head(ours)?;
        if about.source.is_ipv4() != header.source.is_ipv4() {
            return None;
        }
        let transport: &[u8; 8] = ours.get(about.transport..)?.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        Some(Self::Error(Problem {
            tuple: Tuple {
                local: SocketAddr::new(about.source, word(0)),
                remote: SocketAddr::new(about.destination, word(2)),
            },
            protocol: about.protocol,
            sequence: u32::from(word(4)) << 16 | u32::from(word(6)),
            kind,
        }))
    }
}

/// Whether the checksum of a packet's ICMP message is right.
pub(crate) fn checksum_is_right(packet: &[u8], header: &ip::Header) -> bool {
    match header.protocol {
        ip::ICMP => checksum::is_right(checksum::sum(&packet[header.transport..header.len])),
        _ => header.checksum_is_right(packet),
    }
}

/// Makes the answer of an echo request, in its place. Says where the answer begins.
pub(crate) fn answer_echo(packet: &mut [u8], header: &ip::Header) -> usize {
    let message = &mut packet[header.transport..header.len];
    message[0] = if header.protocol == ip::ICMP { 0 } else { 129 };
    finish(message, header.protocol, header.destination, header.source);
    // Without options, the header is as long as ours, or shorter than what there was.
    let at = header.transport - ip::header_len(header.source);
    ip::write(
        &mut packet[at..],
        header.destination,
        header.source,
        header.protocol,
        header.len - header.transport,
    );
    at
}

/// Why a packet of somebody else's does not get to its destination, as type and code of IPv4 and of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreachable([[u8; 2]; 2]);

impl Unreachable {
    /// Nobody listens at its port.
    pub(crate) const PORT: Self = Self([[3, 3], [1, 4]]);
    /// Nothing leads to the host.
    pub(crate) const HOST: Self = Self([[3, 1], [1, 3]]);
    /// Somebody forbids it. Unlike the one before, it ends what waits for an answer to a datagram.
    pub(crate) const PROHIBITED: Self = Self([[3, 13], [1, 1]]);
}

/// Writes to `room` why a packet does not get there, in the name of its destination, and says how long that is.
pub(crate) fn unreachable(
    packet: &[u8],
    header: &ip::Header,
    why: Unreachable,
    room: &mut [u8; MAX_ERROR],
) -> usize {
    let is_v4 = header.source.is_ipv4();
    let protocol = if is_v4 { ip::ICMP } else { ip::ICMP_V6 };
    let at = ip::header_len(header.source);
    let back = header.len.min(MAX_ERROR - at - HEADER);
    let len = HEADER + back;
    ip::write(room, header.destination, header.source, protocol, len);
    let message = &mut room[at..at + len];
    message[..HEADER].fill(0);
    let Unreachable([v4, v6]) = why;
    message[..2].copy_from_slice(if is_v4 { &v4 } else { &v6 });
    message[HEADER..].copy_from_slice(&packet[..back]);
    finish(message, protocol, header.destination, header.source);
    at + len
}

/// Room for an error.
pub(crate) const ERROR_ROOM: [u8; MAX_ERROR] = [0; MAX_ERROR];

/// Sets the checksum of an ICMP message.
pub(crate) fn finish(message: &mut [u8], protocol: u8, source: IpAddr, destination: IpAddr) {
    message[2..4].fill(0);
    let mut sum = checksum::sum(message);
    if protocol == ip::ICMP_V6 {
        sum += checksum::pseudo_header(source, destination, protocol, message.len());
    }
    message[2..4].copy_from_slice(&checksum::finish(sum));
}
