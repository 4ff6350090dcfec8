//! The first bytes of a logged packet: who sends what to whom. Pure.

use std::net::{IpAddr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Most extension headers that are looked past.
const MAX_EXTENSIONS: usize = 8;

/// What a record says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// IP protocol number.
    pub(crate) proto: u8,
    /// Port 0 where the protocol has none, or where it was cut off.
    pub(crate) src: SocketAddr,
    /// Likewise.
    pub(crate) dst: SocketAddr,
    /// Bytes, from the IP header on.
    pub(crate) bytes: u32,
}

/// `None` when it is no IP packet.
pub(crate) fn ends(packet: &[u8]) -> Option<Ends> {
    match packet.first()? >> 4 {
        4 => v4(packet),
        6 => v6(packet),
        _ => None,
    }
}

fn v4(packet: &[u8]) -> Option<Ends> {
    let header = usize::from(packet.first()? & 15) * 4;
    let proto = *packet.get(9)?;
    let (src, dst): ([u8; 4], [u8; 4]) = (array(packet, 12)?, array(packet, 16)?);
    let is_later = u16::from_be_bytes(array(packet, 6)?) & 0x1FFF != 0;
    let ports = if is_later { (0, 0) } else { ports(packet, proto, header) };
    let bytes = u16::from_be_bytes(array(packet, 2)?).into();
    Some(told(proto, (src.into(), dst.into()), ports, bytes))
}

fn v6(packet: &[u8]) -> Option<Ends> {
    let (src, dst): ([u8; 16], [u8; 16]) = (array(packet, 8)?, array(packet, 24)?);
    let bytes = 40 + u32::from(u16::from_be_bytes(array(packet, 4)?));
    let (mut proto, mut at) = (*packet.get(6)?, 40);
    for _ in 0..MAX_EXTENSIONS {
        // Hop-by-hop, routing, destination options; authentication, which counts in other units; fragment.
        let length = match (proto, packet.get(at + 1)) {
            (0 | 43 | 60, Some(&n)) => (usize::from(n) + 1) * 8,
            (51, Some(&n)) => (usize::from(n) + 2) * 4,
            (44, Some(_)) => 8,
            _ => break,
        };
        proto = *packet.get(at)?;
        at += length;
    }
    Some(told(proto, (src.into(), dst.into()), ports(packet, proto, at), bytes))
}

fn told(proto: u8, (src, dst): (IpAddr, IpAddr), ports: (u16, u16), bytes: u32) -> Ends {
    Ends { proto, src: SocketAddr::new(src, ports.0), dst: SocketAddr::new(dst, ports.1), bytes }
}

fn ports(packet: &[u8], proto: u8, at: usize) -> (u16, u16) {
    let both =
        matches!(proto, TCP | UDP).then(|| Some((array(packet, at)?, array(packet, at + 2)?))).flatten();
    both.map_or((0, 0), |(src, dst)| (u16::from_be_bytes(src), u16::from_be_bytes(dst)))
}

fn array<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_are_found_behind_options_and_extensions() {
        let ports = [0x1F, 0x90, 0, 53];
        let mut v4 = vec![0x46, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1, 0, 0, 0, 0];
        v4.extend(ports);
        let told = ends(&v4).unwrap();
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(told, Ends { proto: 17, src: end("10.0.0.2:8080"), dst: end("10.0.0.1:53"), bytes: 60 });

        let mut v6 = vec![0x60, 0, 0, 0, 0, 20, 60, 64];
        v6.extend([&[0xFD; 16][..], &[0xFC; 16], &[6, 0, 1, 4, 0, 0, 0, 0], &ports].concat());
        let told = ends(&v6).unwrap();
        assert_eq!((told.proto, told.src.port(), told.dst.port(), told.bytes), (6, 8080, 53, 60));
        // Cut off before the ports.
        assert_eq!(ends(&v6[..48]).unwrap().dst.port(), 0);
        v4[7] = 1;
        assert_eq!(ends(&v4).unwrap().dst.port(), 0, "a later fragment has no ports");
    }

    proptest! {
        #[test]
        fn garbage_is_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..128), version in 0u8..16) {
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 15;
            }
            let told = ends(&bytes);
            prop_assert!(told.is_none() || version == 4 || version == 6);
        }
    }
}
