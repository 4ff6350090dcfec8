//! IP packets, and what is checked in those that answer them.

use std::net::{IpAddr, Ipv6Addr};

use lattice_policy::Direction;

/// The sandbox's own address.
pub const OWN4: [u8; 4] = [10, 42, 0, 2];
/// Likewise.
pub const OWN6: [u8; 16] = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets();
/// Whom the agent may call, by [`crate::table::table`].
pub const TOOL: [u8; 4] = [192, 0, 2, 1];
/// Likewise.
pub const TOOL6: [u8; 16] = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets();
/// Who may call the agent.
pub const CALLER: [u8; 4] = [192, 0, 2, 7];
/// A router on the way, which no rule names.
pub const ROUTER: [u8; 4] = [198, 51, 100, 9];

/// The flag of TCP.
pub const SYN: u8 = 2;
/// The flag of TCP.
pub const RST: u8 = 4;
/// The flag of TCP.
pub const ACK: u8 = 16;

/// An IPv6 address.
pub fn v6(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

/// An IPv4 packet.
pub fn ip4(proto: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let head = [&[0x45, 0], &total.to_be_bytes()[..], &[0, 7, 0, 0, 64, proto, 0, 0], &src, &dst].concat();
    [&head, payload].concat()
}

/// An IPv6 packet.
pub fn ip6(next: u8, src: [u8; 16], dst: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, 255], &src[..], &dst, payload].concat()
}

/// A TCP segment.
pub fn tcp(src: u16, dst: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    [&ports[..], &1000u32.to_be_bytes(), &5000u32.to_be_bytes(), &[0x50, flags, 1, 0, 0, 0, 0, 0], payload]
        .concat()
}

/// A UDP datagram of twelve bytes.
pub fn udp(src: u16, dst: u16) -> Vec<u8> {
    let mut bytes = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    bytes.extend([0, 20, 0, 0]);
    bytes.extend(b"twelve bytes");
    bytes
}

/// An ICMP message; `id` is the identifier of an echo.
pub fn icmp(kind: u8, code: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0], &id.to_be_bytes()[..], &[0, 1], payload].concat()
}

/// The agent's first segment from port 1111.
pub fn syn4(dst: [u8; 4], port: u16) -> Vec<u8> {
    ip4(6, OWN4, dst, &tcp(1111, port, SYN, b""))
}

/// The first packet of a flow between the sandbox and `remote`. `from` is the caller's port or the identifier, `to` the called port.
pub fn opening(direction: Direction, proto: u8, remote: IpAddr, from: u16, to: u16) -> Vec<u8> {
    let payload = match proto {
        6 => tcp(from, to, SYN, b""),
        17 => udp(from, to),
        1 => icmp(8, 0, from, b""),
        _ => icmp(128, 0, from, b""),
    };
    match (remote, direction) {
        (IpAddr::V4(ip), Direction::Egress) => ip4(proto, OWN4, ip.octets(), &payload),
        (IpAddr::V4(ip), Direction::Ingress) => ip4(proto, ip.octets(), OWN4, &payload),
        (IpAddr::V6(ip), Direction::Egress) => ip6(proto, OWN6, ip.octets(), &payload),
        (IpAddr::V6(ip), Direction::Ingress) => ip6(proto, ip.octets(), OWN6, &payload),
    }
}

/// Writes the fragment field of an IPv4 packet.
pub fn fragment4(mut packet: Vec<u8>, more: bool, offset: u16) -> Vec<u8> {
    let field = u16::from(more) << 13 | offset;
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    packet
}

/// A fragment header in front of `payload`, for [`ip6`] with next header 44.
pub fn fragment6(next: u8, more: bool, offset: u16, payload: &[u8]) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    [&[next, 0, field[0], field[1], 0, 0, 0, 9], payload].concat()
}

/// Whether the Internet checksum (RFC 1071) over `parts` is right. All but the last must have even lengths.
pub fn checksum_is_right(parts: &[&[u8]]) -> bool {
    let words = parts.iter().flat_map(|p| p.chunks(2));
    let sum: u64 = words.map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16) == 0xffff
}
