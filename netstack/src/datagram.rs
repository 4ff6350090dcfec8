//! UDP packets, for who stands for many hosts and keeps no sockets of a [`Stack`](crate::Stack).

use std::net::SocketAddr;

use crate::{Drops, icmp, ip, udp};

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

/// Why a datagram does not get to its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens at its port.
    Port,
    /// Nothing leads to the host.
    Host,
    /// Somebody on the way forbids it.
    Prohibited,
}

/// As much of a packet as [`write_unreachable`] needs: the longest headers of IP and UDP.
pub const QUOTED: usize = 60 + udp::HEADER;

/// The room that [`write_unreachable`] takes, in bytes.
pub const ERROR_ROOM: usize = icmp::ERROR_ROOM.len();

/// Writes to `room` the ICMP error, in the destination's name, that tells the sender of a packet why it does not get there, and says how long it
/// is. `head` is the packet's beginning, of at least [`QUOTED`] bytes unless it is shorter; `None` when it is no IP packet's.
pub fn write_unreachable(room: &mut [u8; ERROR_ROOM], head: &[u8], why: Unreachable) -> Option<usize> {
    let header = ip::Header::read_head(head)?;
    let header = ip::Header { len: header.len.min(head.len()), ..header };
    let why = match why {
        Unreachable::Port => icmp::Unreachable::PORT,
        Unreachable::Host => icmp::Unreachable::HOST,
        Unreachable::Prohibited => icmp::Unreachable::PROHIBITED,
    };
    Some(icmp::unreachable(head, &header, why, room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_datagram_and_its_cause() {
        for (from, to, codes) in [
            ("10.42.0.2:4711", "192.0.2.1:53", [[3, 3], [3, 1], [3, 13]]),
            ("[fd00::2]:4711", "[2001:db8::1]:443", [[1, 4], [1, 3], [1, 1]]),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let mut packet = vec![0; packet_len(to, 1000)];
            write(&mut packet, from, to, &[7; 1000]);
            let all = [Unreachable::Port, Unreachable::Host, Unreachable::Prohibited];
            for (why, code) in all.into_iter().zip(codes) {
                let mut room = [0; ERROR_ROOM];
                let len = write_unreachable(&mut room, &packet[..QUOTED], why).unwrap();
                let at = ip::header_len(from.ip());
                let header = ip::Header::read(&room[..len], &mut Drops::default()).unwrap();
                assert_eq!((header.source, header.destination), (to.ip(), from.ip()));
                assert!(icmp::checksum_is_right(&room[..len], &header));
                assert_eq!(room[at..at + 2], code);
                assert_eq!(room[at + 8..len], packet[..QUOTED]);
            }
            assert_eq!(write_unreachable(&mut [0; ERROR_ROOM], &[], Unreachable::Port), None);
        }
    }

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
