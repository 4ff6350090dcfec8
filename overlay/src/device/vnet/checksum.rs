//! The Internet checksum of packets that the kernel hands over or takes.

pub(crate) use lattice_netstack::checksum::{fold, sum, word};

/// The checksum over what adds up to `sum`.
pub(crate) fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The sum of the pseudo-header of a packet whose transport header begins at `transport`, without IPv6 extension headers
/// (RFC 9293, 3.1; RFC 8200, 8.1).
pub(crate) fn pseudo_header(packet: &[u8], transport: usize, protocol: u8) -> u64 {
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    sum(addresses) + word(protocol.into()) + word(packet.len() - transport)
}
