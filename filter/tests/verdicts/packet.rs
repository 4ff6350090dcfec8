//! Packets for the tests, and what is checked in the answers.

/// The sandbox's own addresses.
pub(crate) const OWN4: [u8; 4] = [10, 42, 0, 2];
pub(crate) const OWN6: &str = "fd00::2";
pub(crate) const TOOL: [u8; 4] = [192, 0, 2, 1];

pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

pub(crate) fn v6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

pub(crate) fn ip4(proto: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let head = [&[0x45, 0], &total.to_be_bytes()[..], &[0, 7, 0, 0, 64, proto, 0, 0], &src, &dst].concat();
    [&head, payload].concat()
}

pub(crate) fn ip6(next: u8, src: [u8; 16], dst: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, 255], &src[..], &dst, payload].concat()
}

pub(crate) fn tcp(src: u16, dst: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    [&ports[..], &1000u32.to_be_bytes(), &5000u32.to_be_bytes(), &[0x50, flags, 1, 0, 0, 0, 0, 0], payload]
        .concat()
}

pub(crate) fn udp(src: u16, dst: u16) -> Vec<u8> {
    let mut bytes = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    bytes.extend([0, 20, 0, 0]);
    bytes.extend(b"twelve bytes");
    bytes
}

pub(crate) fn icmp(kind: u8, code: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0], &id.to_be_bytes()[..], &[0, 1], payload].concat()
}

pub(crate) fn syn4(dst: [u8; 4], port: u16) -> Vec<u8> {
    ip4(6, OWN4, dst, &tcp(1111, port, SYN, b""))
}

/// Writes the fragment field of an IPv4 packet.
pub(crate) fn fragment4(mut packet: Vec<u8>, more: bool, offset: u16) -> Vec<u8> {
    let field = u16::from(more) << 13 | offset;
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    packet
}

/// A fragment header in front of `payload`, for [`ip6`] with next header 44.
pub(crate) fn fragment6(next: u8, more: bool, offset: u16, payload: &[u8]) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    [&[next, 0, field[0], field[1], 0, 0, 0, 9], payload].concat()
}

/// Whether the Internet checksum (RFC 1071) over `parts` is right. All but the last must have even lengths.
pub(crate) fn checksum_is_right(parts: &[&[u8]]) -> bool {
    let words = parts.iter().flat_map(|p| p.chunks(2));
    let sum: u64 = words.map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16) == 0xffff
}
