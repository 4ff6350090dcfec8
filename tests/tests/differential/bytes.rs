//! What a link needs of a packet beyond what the rules look at: its checksum, and what it is known by where it arrives.

use std::net::IpAddr;

/// A packet from its transport header on, and where it comes from and goes to.
pub(crate) type Seen = (IpAddr, IpAddr, Vec<u8>);

/// Where the transport header begins, and its protocol. The openers have no options and no extension headers.
fn transport(packet: &[u8]) -> Option<(usize, u8)> {
    match packet.first()? >> 4 {
        4 => Some((20, *packet.get(9)?)),
        6 => Some((40, *packet.get(6)?)),
        _ => None,
    }
}

fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

pub(crate) fn seen(packet: &[u8]) -> Option<Seen> {
    let (src, dst) = addresses(packet)?;
    let (at, _) = transport(packet)?;
    Some((src, dst, packet.get(at..)?.to_vec()))
}

/// Protocol and source port.
pub(crate) fn ends(packet: &[u8]) -> (u8, u16) {
    let (at, proto) = transport(packet).expect("an opener");
    (proto, u16::from_be_bytes([packet[at], packet[at + 1]]))
}

/// With the transport's checksum (RFC 1071); the kernel fills in that of IPv4's header.
pub(crate) fn sealed(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let (at, proto) = transport(&packet).expect("an opener");
    let field = at
        + match proto {
            6 => 16,
            17 => 6,
            _ => 2,
        };
    packet[field..field + 2].fill(0);
    let pseudo = match (proto, at) {
        (1, _) => Vec::new(),
        (_, 20) => packet[12..20].to_vec(),
        _ => packet[8..40].to_vec(),
    };
    let length = ((packet.len() - at) as u16).to_be_bytes();
    let tail: &[u8] = if pseudo.is_empty() { &[] } else { &[length[0], length[1], 0, proto] };
    let mut sum: u32 = 0;
    for part in [&pseudo, tail, &packet[at..]] {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[field..field + 2].copy_from_slice(&(!sum as u16).to_be_bytes());
    packet
}
