//! IP headers (RFC 791, RFC 8200): what hostile ones must not be, and how ours are written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Drops, checksum};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP_V6: u8 = 58;

/// The longest header of ours.
pub(crate) const MAX_HEADER: usize = 40;

const DONT_FRAGMENT: u8 = 0x40;
const HOP_LIMIT: u8 = 64;

/// What a packet's IP header says. Its addresses can be those of two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// Where the transport header begins; at least 20.
    pub(crate) transport: usize,
    /// Bytes of the packet; what follows in the buffer is padding.
    pub(crate) len: usize,
}

impl Header {
    /// Reads a whole packet's; counts what is wrong with it.
    ///
    /// Fragments are refused: who seals packets into datagrams of a known size has no use for them, and putting them
    /// together takes memory for whoever asks. So are IPv6 extension headers, which nothing here understands.
    pub(crate) fn read(packet: &[u8], drops: &mut Drops) -> Option<Self> {
        let Some(header) = Self::read_head(packet).filter(|header| header.len <= packet.len()) else {
            drops.malformed += 1;
            return None;
        };
        if is_v4(packet) && !checksum::is_right(checksum::sum(&packet[..header.transport])) {
            drops.malformed += 1;
            return None;
        }
        if is_v4(packet) && u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0 {
            drops.fragments += 1;
            return None;
        }
        if !is_host(header.source) || header.source == header.destination {
            drops.malformed += 1;
            return None;
        }
        Some(header)
    }

    /// Reads one of which the packet's end may be missing, as in an ICMP error.
    pub(crate) fn read_head(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let fixed: &[u8; 20] = packet.first_chunk()?;
                let transport = usize::from(fixed[0] & 0x0f) * 4;
                let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
                if transport < fixed.len() || len < transport || packet.len() < transport {
                    return None;
                }
                let address =
                    |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
                let (source, destination) = (address(12).into(), address(16).into());
                Some(Self { source, destination, protocol: fixed[9], transport, len })
            }
            6 => {
                let fixed: &[u8; 40] = packet.first_chunk()?;
                let len = fixed.len() + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
                let address = |at: usize| Ipv6Addr::from(*fixed[at..].first_chunk::<16>().expect("40 bytes"));
                let (source, destination) = (address(8).into(), address(24).into());
                Some(Self { source, destination, protocol: fixed[6], transport: fixed.len(), len })
            }
            _ => None,
        }
    }

    /// Whether the checksum over the transport header and its data is right, with the pseudo-header.
    pub(crate) fn checksum_is_right(&self, packet: &[u8]) -> bool {
        let transport = &packet[self.transport..self.len];
        let sum = checksum::pseudo_header(self.source, self.destination, self.protocol, transport.len());
        checksum::is_right(sum + checksum::sum(transport))
    }
}

/// Bytes of a header of ours.
pub(crate) fn header_len(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

/// Writes a header before `payload` bytes of `protocol` and says how long it is. Packets are never to be fragmented on
/// their way.
pub(crate) fn write(
    room: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: usize,
) -> usize {
    let len = header_len(source);
    let head = &mut room[..len];
    head.fill(0);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            head[0] = 0x45;
            (head[6], head[8], head[9]) = (DONT_FRAGMENT, HOP_LIMIT, protocol);
            head[12..16].copy_from_slice(&source.octets());
            head[16..20].copy_from_slice(&destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (head[0], head[6], head[7]) = (0x60, protocol, HOP_LIMIT);
            head[8..24].copy_from_slice(&source.octets());
            head[24..40].copy_from_slice(&destination.octets());
        }
        _ => unreachable!("a flow is of one IP version"),
    }
    set_len(head, len + payload);
    len
}

/// Sets a packet's length in its header, and the header's checksum where it has one.
pub(crate) fn set_len(head: &mut [u8], len: usize) {
    if is_v4(head) {
        head[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        head[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(&head[..20]));
        head[10..12].copy_from_slice(&sum);
    } else {
        head[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    }
}

pub(crate) fn is_v4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

/// Whether it can be one host's address.
pub(crate) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !v4.is_unspecified()
                && !v4.is_loopback()
                && !v4.is_multicast()
                && v4.octets()[0] < 240
                && v4.octets()[0] != 0
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; MAX_HEADER];
        let len =
            write(&mut packet, source.parse().unwrap(), destination.parse().unwrap(), UDP, payload.len());
        packet.truncate(len);
        packet.extend(payload);
        packet
    }

    #[test]
    fn reads_what_is_written_and_leaves_padding_out() {
        for (source, destination) in [("10.42.0.1", "10.42.0.2"), ("fd00::1", "fd00::2")] {
            let mut bytes = packet(source, destination, b"payload");
            bytes.extend([0; 9]);
            let header = Header::read(&bytes, &mut Drops::default()).unwrap();
            assert_eq!(header.source.to_string(), source);
            assert_eq!(header.destination.to_string(), destination);
            assert_eq!((header.protocol, &bytes[header.transport..header.len]), (UDP, &b"payload"[..]));
        }
    }

    #[test]
    fn refuses_fragments_impossible_sources_and_broken_headers() {
        let whole = packet("10.42.0.1", "10.42.0.2", b"payload");
        let refused = |change: &dyn Fn(&mut Vec<u8>), fix: bool| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            if fix {
                let len = bytes.len();
                set_len(&mut bytes, len);
            }
            let mut drops = Drops::default();
            assert_eq!(Header::read(&bytes, &mut drops), None);
            (drops.malformed, drops.fragments)
        };
        assert_eq!(refused(&|bytes| bytes[6] = 0x20, true), (0, 1), "the first fragment");
        assert_eq!(refused(&|bytes| bytes[7] = 9, true), (0, 1), "a later one");
        assert_eq!(refused(&|bytes| bytes[12] = 224, true), (1, 0), "multicast");
        assert_eq!(refused(&|bytes| bytes[12] = 127, true), (1, 0), "loopback");
        assert_eq!(refused(&|bytes| bytes[19] = 1, true), (1, 0), "to itself");
        assert_eq!(refused(&|bytes| bytes[8] ^= 1, false), (1, 0), "the checksum");
        assert_eq!(refused(&|bytes| bytes.truncate(26), false), (1, 0), "cut short");
    }

    proptest! {
        #[test]
        fn a_length_never_exceeds_the_buffer(
            mut packet in prop::collection::vec(any::<u8>(), 0..128),
            version in prop::sample::select(vec![0x40, 0x45, 0x46, 0x4f, 0x60, 0x6f, 0x00, 0xff]),
            len in 0u8..140,
        ) {
            if packet.len() > 5 {
                packet[0] = version;
                let at = if version >> 4 == 6 { 4 } else { 2 };
                packet[at..at + 2].copy_from_slice(&[0, len]);
            }
            if let Some(header) = Header::read(&packet, &mut Drops::default()) {
                prop_assert!(header.len <= packet.len() && (20..=header.len).contains(&header.transport));
            }
        }
    }
}
