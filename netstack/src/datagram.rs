//! UDP packets, for who stands for many hosts and keeps no sockets of a [`Stack`](crate::Stack).

use std::net::SocketAddr;

use crate::{Drops, ip, udp};

/// The longest payload, in bytes: what a UDP header's length can say, less headers (RFC 768, RFC 791).
pub const MAX_PAYLOAD: usize = 65_535 - 20 - udp::HEADER;

/// Reads a whole packet that is a datagram: who sent it to whom, and what. `None` for everything else, and for what is a fragment or whose
/// checksum is wrong.
pub fn read(packet: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let header = ip::Header::read(packet, &mut Drops::default())?;
    if header.protocol != ip::UDP || header.len < header.transport + udp::HEADER {
        return None;
    }
    let (source, destination, payload) = udp::read(packet, &header)?;
    udp::checksum_is_right(packet, &header).then(|| {
        (SocketAddr::new(header.source, source), SocketAddr::new(header.destination, destination), payload)
    })
}

/// How long the packet is that carries `payload` bytes to `to`.
pub fn packet_len(to: SocketAddr, payload: usize) -> usize {
    ip::header_len(to.ip()) + udp::HEADER + payload
}

/// Writes the packet that carries `payload`, of at most [`MAX_PAYLOAD`] bytes, to a room of [`packet_len`] bytes.
///
/// # Panics
/// When the addresses are not of one IP version, or the room is too small.
pub fn write(room: &mut [u8], from: SocketAddr, to: SocketAddr, payload: &[u8]) {
    udp::write(room, from, to, payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        for (from, to) in [("192.0.2.1:53", "10.42.0.2:4711"), ("[2001:db8::1]:443", "[fd00::2]:4711")] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for payload in [&b""[..], b"x", &[7; 1372]] {
                let mut packet = vec![0; packet_len(to, payload.len())];
                write(&mut packet, from, to, payload);
                assert_eq!(read(&packet), Some((from, to, payload)));
                for len in 0..packet.len() {
                    assert_eq!(read(&packet[..len]), None, "cut to {len}");
                }
                *packet.last_mut().unwrap() ^= 1;
                assert_eq!(read(&packet), None, "a wrong sum");
            }
        }
        let mut fragment = vec![0; 28];
        write(&mut fragment, "192.0.2.1:53".parse().unwrap(), "10.42.0.2:1".parse().unwrap(), b"");
        fragment[6] = 0x20;
        ip::set_len(&mut fragment, 28);
        assert_eq!(read(&fragment), None);
    }
}
