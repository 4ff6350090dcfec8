//! UDP datagrams as raw sockets have them (RFC 768): with their header, and with that of IPv4 where they come in. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lattice_netstack::checksum::{finish, sum, word};

/// Bytes of a UDP header.
const HEADER: usize = 8;
const UDP: u8 = 17;

/// A UDP datagram from address to address, without the header of IP; `None` when it is too large for one, or the addresses are not of
/// one version.
pub(super) fn build(from: SocketAddr, to: SocketAddr, content: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(HEADER + content.len()).ok()?;
    let addresses = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum(&from.octets()) + sum(&to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => sum(&from.octets()) + sum(&to.octets()),
        _ => return None,
    };
    let mut datagram = Vec::with_capacity(usize::from(len));
    for field in [from.port(), to.port(), len, 0] {
        datagram.extend_from_slice(&field.to_be_bytes());
    }
    datagram.extend_from_slice(content);
    let checksum = finish(addresses + word(usize::from(UDP)) + word(usize::from(len)) + sum(&datagram));
    // None at all is written as zero (RFC 768), so a checksum of zero is written as its other form.
    let checksum = if checksum == [0, 0] { [0xff, 0xff] } else { checksum };
    datagram[6..HEADER].copy_from_slice(&checksum);
    Some(datagram)
}

/// The datagram in an IPv4 packet: where from, to which address of ours, and its content. `None` unless it is UDP to `port`.
pub(super) fn read_ipv4(packet: &[u8], port: u16) -> Option<(SocketAddr, IpAddr, &[u8])> {
    let header = packet.first_chunk::<20>()?;
    if header[0] >> 4 != 4 || header[9] != UDP {
        return None;
    }
    let (source, content) = read(packet.get(usize::from(header[0] & 0xf) * 4..)?, port)?;
    let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(*header[at..].first_chunk::<4>()?)));
    Some((SocketAddr::new(address(12)?, source), address(16)?, content))
}

/// The port that a UDP datagram comes from, and its content. `None` unless it is for `port`.
///
/// Its checksum is not looked at: a packet of this host has none yet, and STUN proves its own.
pub(super) fn read(datagram: &[u8], port: u16) -> Option<(u16, &[u8])> {
    let [s0, s1, d0, d1, l0, l1, ..] = *datagram.first_chunk::<HEADER>()?;
    let content = datagram.get(HEADER..usize::from(u16::from_be_bytes([l0, l1])))?;
    (u16::from_be_bytes([d0, d1]) == port).then_some((u16::from_be_bytes([s0, s1]), content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_built_is_read() {
        for content in [&b""[..], b"odd", b"even"] {
            let datagram = build(at("192.0.2.1:7"), at("192.0.2.2:9"), content).unwrap();
            assert_eq!(read(&datagram, 9), Some((7, content)));
            assert_eq!(read(&datagram, 7), None, "another port");
            let mut packet = vec![0; 24];
            (packet[0], packet[9]) = (0x46, UDP);
            packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
            packet[16..20].copy_from_slice(&[192, 0, 2, 2]);
            packet.extend_from_slice(&datagram);
            let read = read_ipv4(&packet, 9);
            assert_eq!(read, Some((at("192.0.2.1:7"), at("192.0.2.2:9").ip(), content)), "with options");
            for len in 0..packet.len() {
                assert_eq!(read_ipv4(&packet[..len], 9), None, "cut to {len}");
            }
        }
        assert_eq!(build(at("192.0.2.1:7"), at("[2001:db8::1]:9"), b"?"), None);
        assert_eq!(build(at("192.0.2.1:7"), at("192.0.2.2:9"), &[0; 65_528]), None);
    }

    #[test]
    fn checksums_are_right_and_never_zero() {
        // Over a datagram with its checksum, the sum of all is that of no checksum.
        for number in 0..=u16::MAX {
            let (from, to) = (at("[2001:db8::1]:7"), at("[2001:db8::2]:9"));
            let datagram = build(from, to, &number.to_be_bytes()).unwrap();
            let IpAddr::V6(from) = from.ip() else { unreachable!() };
            let IpAddr::V6(to) = to.ip() else { unreachable!() };
            let all = sum(&from.octets()) + sum(&to.octets()) + word(17) + word(10) + sum(&datagram);
            assert_eq!(finish(all), [0, 0]);
            assert_ne!(datagram[6..8], [0, 0]);
        }
    }
}
