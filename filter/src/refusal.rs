//! Says no at once: the answer that the sender of a denied packet would get from a closed door.

use lattice_policy::{Direction, Reason};

use crate::packet::{
    ACK, FIN, FlowKey, Fragment, ICMP, ICMPV6, Packet, RST, SYN, TCP, UDP, V4_HEADER, V6_HEADER, u32_at,
};

const TCP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;

/// What an ICMP error quotes behind the IP header: enough to name the socket.
const QUOTED: usize = 8;

/// The longest: an ICMPv6 error.
const MOST: usize = V6_HEADER + ICMP_HEADER + V6_HEADER + QUOTED;

/// An IP packet to hand to the sender of a denied one. Dereferences to its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    bytes: [u8; MOST],
    len: usize,
}

impl std::ops::Deref for Refusal {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Refusal {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Only for these reasons: before they are reached, groups and foreign sources have been turned away.
pub(crate) fn refusal(packet: &[u8], reason: Reason) -> Option<Refusal> {
    if !matches!(reason, Reason::RuleDeny | Reason::DefaultDeny | Reason::NoPolicy) {
        return None;
    }
    let (packet, read) = Packet::parse(Direction::Egress, packet);
    read.ok()?;
    if packet.fragment == Fragment::Later {
        return None;
    }
    let v4 = packet.key.family == 4;
    if packet.key.proto == TCP {
        return if packet.tcp_flags & RST != 0 { None } else { reset(&packet) };
    }
    if packet.key.proto != UDP && !packet.opener {
        return None;
    }
    // A quote of 8 bytes behind extension headers would not name the socket.
    if packet.transport != if v4 { V4_HEADER } else { V6_HEADER } {
        return None;
    }
    if v4 {
        // Destination unreachable, communication administratively prohibited (RFC 1812, 5.2.7.1).
        unreachable(&packet, ICMP, [3, 13], packet.load::<{ V4_HEADER + QUOTED }>(0).ok()?)
    } else {
        // Destination unreachable, communication with destination administratively prohibited (RFC 4443, 3.1).
        unreachable(&packet, ICMPV6, [1, 1], packet.load::<{ V6_HEADER + QUOTED }>(0).ok()?)
    }
}

/// RFC 9293, 3.10.7.1: what a closed port answers.
fn reset(packet: &Packet<'_>) -> Option<Refusal> {
    let header: &[u8; TCP_HEADER] = packet.load(packet.transport).ok()?;
    let flags = header[13];
    let (seq, ack, answer) = if flags & ACK != 0 {
        (u32_at(header, 8), 0, RST)
    } else {
        // As the sender claims, be it nonsense: the answer then fits nothing.
        let data = (packet.end - packet.transport) as u32;
        let length = data.wrapping_sub(u32::from(header[12] >> 4) * 4);
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, u32_at(header, 4).wrapping_add(length).wrapping_add(control), RST | ACK)
    };
    let mut tcp = [0; TCP_HEADER];
    tcp[..2].copy_from_slice(&header[2..4]);
    tcp[2..4].copy_from_slice(&header[..2]);
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = (TCP_HEADER as u8 / 4) << 4;
    tcp[13] = answer;
    Some(Refusal::new(&packet.key, TCP, 16, &[&tcp]))
}

fn unreachable(packet: &Packet<'_>, proto: u8, kind: [u8; 2], quote: &[u8]) -> Option<Refusal> {
    let icmp = [kind[0], kind[1], 0, 0, 0, 0, 0, 0];
    Some(Refusal::new(&packet.key, proto, 2, &[&icmp, quote]))
}

impl Refusal {
    /// From the remote end to the agent. `checksum` is where in the payload its checksum goes.
    fn new(key: &FlowKey, proto: u8, checksum: usize, payload: &[&[u8]]) -> Self {
        let length = payload.iter().map(|part| part.len()).sum::<usize>();
        let header = if key.family == 4 { V4_HEADER } else { V6_HEADER };
        let mut bytes = [0; MOST];
        let mut at = header;
        for part in payload {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let addresses = if key.family == 4 {
            write_v4(&mut bytes, key, proto, at as u16);
            12..20
        } else {
            write_v6(&mut bytes, key, proto, length as u16);
            8..40
        };
        let pseudo_header = match proto {
            // It has none (RFC 792).
            ICMP => 0,
            _ => sum(&bytes[addresses]) + u32::from(proto) + length as u32,
        };
        let sum = folded(pseudo_header + sum(&bytes[header..at]));
        bytes[header + checksum..header + checksum + 2].copy_from_slice(&sum.to_be_bytes());
        Self { bytes, len: at }
    }
}

fn write_v4(bytes: &mut [u8; MOST], key: &FlowKey, proto: u8, total: u16) {
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    // Do not fragment: no identification is needed then (RFC 6864).
    bytes[6] = 0x40;
    bytes[8] = HOP_LIMIT;
    bytes[9] = proto;
    bytes[12..16].copy_from_slice(&(key.remote as u32).to_be_bytes());
    bytes[16..20].copy_from_slice(&(key.local as u32).to_be_bytes());
    let sum = folded(sum(&bytes[..V4_HEADER]));
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn write_v6(bytes: &mut [u8; MOST], key: &FlowKey, proto: u8, payload: u16) {
    bytes[0] = 0x60;
    bytes[4..6].copy_from_slice(&payload.to_be_bytes());
    bytes[6] = proto;
    bytes[7] = HOP_LIMIT;
    bytes[8..24].copy_from_slice(&key.remote.to_be_bytes());
    bytes[24..40].copy_from_slice(&key.local.to_be_bytes());
}

/// The sum of the Internet checksum (RFC 1071) over an even number of bytes, far fewer than would overflow it.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
