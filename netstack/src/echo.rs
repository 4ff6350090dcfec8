//! Pings, for who stands for many hosts: requests that are to be sent on, and answers in others' names.

use std::net::IpAddr;

use crate::{Drops, icmp, ip};

/// The longest message, in bytes: what an IPv4 header's length can say, less the header.
pub const MAX_MESSAGE: usize = 65_535 - 20;

/// What comes before a message's data: type, code, checksum, identifier and sequence number (RFC 792, RFC 4443).
pub const HEADER: usize = 8;

/// An echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Who asks.
    pub from: IpAddr,
    /// Who is asked.
    pub to: IpAddr,
    /// Tells the asker's own pings apart.
    pub identifier: u16,
    /// The ICMP message, from its type on; at least [`HEADER`] bytes.
    pub message: &'a [u8],
}

/// Whether a packet, of which the end may be missing, begins like an echo request.
pub fn is_request(packet: &[u8]) -> bool {
    let kind = |header: ip::Header| packet.get(header.transport).map(|kind| (header.protocol, *kind));
    matches!(ip::Header::read_head(packet).and_then(kind), Some((ip::ICMP, 8) | (ip::ICMP_V6, 128)))
}

/// Reads a whole packet that is an echo request. `None` for everything else, and for what is a fragment or whose checksum is wrong.
pub fn read(packet: &[u8]) -> Option<Request<'_>> {
    let header = ip::Header::read(packet, &mut Drops::default())?;
    let message = packet.get(header.transport..header.len).filter(|message| message.len() >= HEADER)?;
    if !is_request(packet) || message[1] != 0 || !icmp::checksum_is_right(packet, &header) {
        return None;
    }
    let identifier = u16::from_be_bytes([message[4], message[5]]);
    Some(Request { from: header.source, to: header.destination, identifier, message })
}

/// How long the packet is that carries a message of `message` bytes to `to`.
pub fn packet_len(to: IpAddr, message: usize) -> usize {
    ip::header_len(to) + message
}

/// Writes the packet that tells `to` what `from` answered, to a room of [`packet_len`] bytes. Of `message`, an echo reply of [`HEADER`] to
/// [`MAX_MESSAGE`] bytes, the sequence number and the data count.
///
/// # Panics
/// When the addresses are not of one IP version, the room is too small, or the message too short.
pub fn write_reply(room: &mut [u8], from: IpAddr, to: IpAddr, identifier: u16, message: &[u8]) {
    let (protocol, kind) = if to.is_ipv4() { (ip::ICMP, 0) } else { (ip::ICMP_V6, 129) };
    let at = ip::write(room, from, to, protocol, message.len());
    let reply = &mut room[at..at + message.len()];
    reply.copy_from_slice(message);
    (reply[0], reply[1]) = (kind, 0);
    reply[4..6].copy_from_slice(&identifier.to_be_bytes());
    icmp::finish(reply, protocol, from, to);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(from: IpAddr, to: IpAddr) -> Vec<u8> {
        let message = [0, 0, 0, 0, 0, 0, 0, 9, b'h', b'i'];
        let mut packet = vec![0; packet_len(to, message.len())];
        write_reply(&mut packet, from, to, 4711, &message);
        // A request differs by its type alone.
        let at = packet.len() - message.len();
        packet[at] = if to.is_ipv4() { 8 } else { 128 };
        let protocol = if to.is_ipv4() { ip::ICMP } else { ip::ICMP_V6 };
        icmp::finish(&mut packet[at..], protocol, from, to);
        packet
    }

    #[test]
    fn a_request_is_read_and_nothing_else_is() {
        for (from, to) in [("10.42.0.2", "192.0.2.1"), ("fd00::2", "2001:db8::1")] {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let mut packet = request(from, to);
            let read = read(&packet).unwrap();
            assert_eq!((read.from, read.to, read.identifier), (from, to, 4711));
            assert_eq!(&read.message[6..], [0, 9, b'h', b'i']);
            assert!(is_request(&packet));
            for len in 0..packet.len() {
                assert_eq!(super::read(&packet[..len]), None, "cut to {len}");
            }
            *packet.last_mut().unwrap() ^= 1;
            assert_eq!(super::read(&packet), None, "a wrong sum");
            let mut reply = vec![0; packet_len(to, HEADER)];
            write_reply(&mut reply, to, from, 1, &[0; HEADER]);
            assert_eq!(super::read(&reply), None);
            assert!(!is_request(&reply) && !is_request(&[]));
        }
    }
}
