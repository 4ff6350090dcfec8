//! The little that routing needs of an IP header (RFC 791, RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a packet comes from, goes, and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The packet's length in bytes; what follows in the buffer is padding.
    pub(crate) len: usize,
}

/// Where a packet goes, as its first bytes say; they need not be all of it.
pub(crate) fn destination(head: &[u8]) -> Option<IpAddr> {
    match head.first()? >> 4 {
        4 => head.first_chunk().map(|fixed| v4(fixed, 16)),
        6 => head.first_chunk().map(|fixed| v6(fixed, 24)),
        _ => None,
    }
}

/// The header of a whole packet; `None` when it is no IP packet or is cut short.
pub(crate) fn parse(packet: &[u8]) -> Option<Header> {
    let header = match packet.first()? >> 4 {
        4 => {
            let fixed: &[u8; 20] = packet.first_chunk()?;
            let header_len = usize::from(fixed[0] & 0x0f) * 4;
            let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
            if header_len < fixed.len() || len < header_len {
                return None;
            }
            Header { source: v4(fixed, 12), destination: v4(fixed, 16), len }
        }
        6 => {
            let fixed: &[u8; 40] = packet.first_chunk()?;
            let len = fixed.len() + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
            Header { source: v6(fixed, 8), destination: v6(fixed, 24), len }
        }
        _ => return None,
    };
    (header.len <= packet.len()).then_some(header)
}

fn v4(header: &[u8; 20], at: usize) -> IpAddr {
    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into()
}

fn v6(header: &[u8; 40], at: usize) -> IpAddr {
    Ipv6Addr::from_bits(header[at..at + 16].iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte))).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_both_versions_and_leaves_padding_out() {
        let mut packet = vec![0x45, 0, 0, 21, 0, 0, 0, 0, 64, 17, 0, 0, 10, 42, 0, 1, 10, 42, 0, 2, 7];
        packet.extend([0; 11]);
        let header = parse(&packet).unwrap();
        assert_eq!(header.source.to_string(), "10.42.0.1");
        assert_eq!(header.destination.to_string(), "10.42.0.2");
        assert_eq!(header.len, 21);
        assert_eq!(destination(&packet[..20]), Some(header.destination));
        assert_eq!(destination(&packet[..19]), None);

        let mut packet = vec![0x60, 0, 0, 0, 0, 1, 17, 64];
        packet.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([7, 0, 0]);
        let header = parse(&packet).unwrap();
        assert_eq!(
            (header.source.to_string(), header.destination.to_string()),
            ("fd00::1".into(), "fd00::2".into())
        );
        assert_eq!(header.len, 41);
        assert_eq!(destination(&packet[..40]), Some(header.destination));
        assert_eq!(destination(&packet[..39]), None);
    }

    proptest! {
        #[test]
        fn a_length_never_exceeds_the_buffer(
            mut packet in prop::collection::vec(any::<u8>(), 0..128),
            version in prop::sample::select(vec![0x40, 0x45, 0x46, 0x4f, 0x60, 0x6f, 0x00, 0xff]),
            len in 0u8..140,
        ) {
            if packet.len() > 5 {
                // Mostly what could be a packet: a random version or length would be refused at once.
                packet[0] = version;
                let at = if version >> 4 == 6 { 4 } else { 2 };
                packet[at..at + 2].copy_from_slice(&[0, len]);
            }
            if let Some(header) = parse(&packet) {
                prop_assert!(header.len <= packet.len() && header.len >= 20);
            }
        }
    }
}
