//! ICMP "host unreachable" for packets nobody will take (RFC 792, RFC 4443).

use std::time::{Duration, Instant};

use crate::Output;

/// Errors sent in one [`PERIOD`]: enough for every honest program to hear of its mistake.
pub(crate) const MAX_PER_PERIOD: u32 = 64;

pub(crate) const PERIOD: Duration = Duration::from_millis(250);

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// How much of the packet an error quotes: well within every minimum MTU.
const QUOTE: usize = 512;

/// Counts the errors.
pub(crate) struct Unreachables {
    since: Instant,
    count: u32,
}

impl Unreachables {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// Tells the sender of a packet at once that nobody is there, so that it does not wait for a timeout.
    pub(crate) fn refuse(&mut self, packet: &[u8], now: Instant, out: &mut impl Output) {
        if now.saturating_duration_since(self.since) >= PERIOD {
            *self = Self::new(now);
        }
        if self.count < MAX_PER_PERIOD
            && let Some(mut error) = reply_to(packet)
        {
            self.count += 1;
            out.deliver(&mut error);
        }
    }
}

/// The error to hand back to the sender of `packet`, a whole IP packet. `None` where none may be sent: to an error, to a
/// later fragment, to a group, or from no address. It comes from the address that cannot be reached, for which there is
/// a route, so that a reverse path filter lets it in.
pub(crate) fn reply_to(packet: &[u8]) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => reply_v4(packet),
        6 => reply_v6(packet),
        _ => None,
    }
}

fn reply_v4(packet: &[u8]) -> Option<Vec<u8>> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    let is_group = header[16] >= 224 || header[12] >= 224 || header[12] == 0;
    // Echo and its like are questions; every other ICMP type may be an error.
    let is_error = header[9] == ICMP && !matches!(packet.get(header_len), Some(0 | 8 | 13 | 14));
    if is_later_fragment || is_group || is_error {
        return None;
    }
    let quote = &packet[..packet.len().min(QUOTE)];
    let total = u16::try_from(20 + 8 + quote.len()).ok()?;
    let mut reply = Vec::with_capacity(total.into());
    reply.extend([0x45, 0xc0]);
    reply.extend(total.to_be_bytes());
    reply.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
    reply.extend(&header[16..20]);
    reply.extend(&header[12..16]);
    let checksum = !sum(0, &reply);
    reply[10..12].copy_from_slice(&checksum.to_be_bytes());
    // Destination unreachable, host unreachable.
    reply.extend([3, 1, 0, 0, 0, 0, 0, 0]);
    reply.extend(quote);
    let checksum = !sum(0, &reply[20..]);
    reply[22..24].copy_from_slice(&checksum.to_be_bytes());
    Some(reply)
}

fn reply_v6(packet: &[u8]) -> Option<Vec<u8>> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let is_group = header[24] == 0xff || header[8] == 0xff || header[8..24] == [0; 16];
    // Informational types have the high bit set (RFC 4443 section 2.1). Behind extension headers nothing is known.
    let is_safe = matches!(header[6], 6 | 17) || header[6] == ICMPV6 && *packet.get(40)? >= 128;
    if is_group || !is_safe {
        return None;
    }
    let quote = &packet[..packet.len().min(QUOTE)];
    let payload = u16::try_from(8 + quote.len()).ok()?;
    let mut reply = Vec::with_capacity(40 + usize::from(payload));
    reply.extend([0x60, 0, 0, 0]);
    reply.extend(payload.to_be_bytes());
    reply.extend([ICMPV6, 64]);
    reply.extend(&header[24..40]);
    reply.extend(&header[8..24]);
    // Destination unreachable, address unreachable.
    reply.extend([1, 3, 0, 0, 0, 0, 0, 0]);
    reply.extend(quote);
    let pseudo_header = u32::from(payload) + u32::from(ICMPV6);
    let checksum = !sum(pseudo_header, &reply[8..]);
    reply[42..44].copy_from_slice(&checksum.to_be_bytes());
    Some(reply)
}

/// The Internet checksum's sum (RFC 1071), not yet complemented.
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip;
    use proptest::prelude::*;

    fn udp_v4() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 42, 0, 1, 10, 42, 0, 2];
        packet.extend([0x12, 0x34, 0, 53, 0, 8, 0, 0]);
        packet
    }

    #[test]
    fn goes_back_to_the_sender_with_valid_checksums() {
        let packet = udp_v4();
        let reply = reply_to(&packet).unwrap();
        let header = ip::parse(&reply).unwrap();
        assert_eq!(
            (header.source.to_string(), header.destination.to_string()),
            ("10.42.0.2".into(), "10.42.0.1".into())
        );
        assert_eq!(sum(0, &reply[..20]), 0xffff);
        assert_eq!(sum(0, &reply[20..]), 0xffff);
        assert_eq!(&reply[28..], packet);
    }

    #[test]
    fn never_answers_an_error_a_group_or_a_later_fragment() {
        let mut error = udp_v4();
        (error[9], error[20]) = (ICMP, 3);
        let mut group = udp_v4();
        group[16] = 224;
        let mut fragment = udp_v4();
        fragment[7] = 1;
        for packet in [error, group, fragment] {
            assert_eq!(reply_to(&packet), None);
        }
    }

    proptest! {
        #[test]
        fn takes_anything(mut packet in prop::collection::vec(any::<u8>(), 0..600), six in any::<bool>()) {
            if let Some(first) = packet.first_mut() {
                *first = if six { 0x60 } else { 0x45 };
            }
            if let Some(reply) = reply_to(&packet) {
                prop_assert!(ip::parse(&reply).is_some());
                prop_assert_eq!(reply_to(&reply), None);
            }
        }
    }
}
