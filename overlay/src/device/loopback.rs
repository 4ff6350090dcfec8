//! Ports of the link's own address that are those of the host's loopback behind it: a service that listens on 127.0.0.1 alone is reached by peers
//! there, and sees who they are.
//!
//! ```text
//!   peer ─► 10.42.0.3:8080 ─► filter ─► 127.0.0.1:8080 ─► tun          peer ◄─ 10.42.0.3:8080 ◄─ filter ◄─ 127.0.0.1:8080 ◄─ tun
//! ```
//!
//! No state is kept: of what comes in the destination is another one by its port, of what goes out the source, so that the filter and its records
//! know only the link's own address. ICMP errors are led by the ports that they quote. Of a datagram in fragments only the first has ports: on the way out
//! the others follow all the same, and the filter lets out none whose first it did not; what comes in in fragments is led nowhere. The host behind must
//! route 127.0.0.0/8 by the link (`route_localnet`, `Documentation/networking/ip-sysctl.rst`); there is no such thing for IPv6. Pure.

use std::net::Ipv4Addr;

use super::vnet::{TCP, TCP_CHECKSUM, UDP, UDP_CHECKSUM, put_u16, u16_at};

const LOCALHOST: [u8; 4] = Ipv4Addr::LOCALHOST.octets();

/// Where things stand in an IPv4 header (RFC 791, 3.1).
const FRAGMENT: usize = 6;
const PROTOCOL: usize = 9;
const HEADER_CHECKSUM: usize = 10;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

const ICMP: u8 = 1;
/// ICMP's header, and where its checksum stands (RFC 792).
const ICMP_HEADER: usize = 8;
const ICMP_CHECKSUM: usize = 2;

/// Such ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopbackPorts {
    /// The link's IPv4 address.
    pub own: Ipv4Addr,
    /// Those of TCP.
    pub tcp: Vec<u16>,
    /// Those of UDP.
    pub udp: Vec<u16>,
}

/// What a transport's checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Covers {
    /// Everything, as on a wire.
    All,
    /// The pseudo-header: the rest is to be added (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    PseudoHeader,
}

/// Which end of a packet is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// An address, and the one that is put in its place.
#[derive(Debug, Clone, Copy)]
struct Change {
    old: [u8; 4],
    new: [u8; 4],
}

impl LoopbackPorts {
    /// Leads a packet that comes in to the host's loopback, if it is for one of the ports.
    pub(super) fn inward(&self, packet: &mut [u8]) {
        let change = Change { old: self.own.octets(), new: LOCALHOST };
        self.lead(packet, End::Destination, change, Covers::All);
    }

    /// Gives a packet that goes out from one of the ports on loopback the link's own address.
    pub(super) fn outward(&self, packet: &mut [u8], covers: Covers) {
        let change = Change { old: LOCALHOST, new: self.own.octets() };
        self.lead(packet, End::Source, change, covers);
    }

    /// Changes the address at `end` of a packet whose port there is one of these.
    fn lead(&self, packet: &mut [u8], end: End, change: Change, covers: Covers) {
        let Some(transport) = transport_of(packet) else { return };
        if !change.is_of(packet, end) {
            return;
        }
        let fragment = u16_at(packet, FRAGMENT);
        match packet[PROTOCOL] {
            ICMP if fragment & (OFFSET | MORE_FRAGMENTS) == 0 => {
                if self.lead_quote(&mut packet[transport..], end.other(), change) {
                    change.make(packet, end);
                }
            }
            UDP if fragment & OFFSET != 0 && end == End::Source => change.make(packet, end),
            _ if fragment & OFFSET != 0 || (fragment & MORE_FRAGMENTS != 0 && end == End::Destination) => {}
            _ => {
                let checksum = self.checksum_of(packet, transport, end);
                if let Some(checksum) = checksum.filter(|at| packet.len() >= at + 2) {
                    change.make(packet, end);
                    change.cover(packet, checksum, covers);
                }
            }
        }
    }

    /// Changes the address at `end` of what an ICMP error quotes, and says whether that is of one of these ports. The sum of an IPv4 header with its
    /// checksum is the same for all, so that of the error changes with the quoted transport's checksum only.
    fn lead_quote(&self, message: &mut [u8], end: End, change: Change) -> bool {
        let Some((head, quoted)) = message.split_at_mut_checked(ICMP_HEADER) else { return false };
        let Some(transport) = transport_of(quoted).filter(|_| matches!(head[0], 3 | 11 | 12)) else {
            return false;
        };
        let is_first = u16_at(quoted, FRAGMENT) & OFFSET == 0;
        if !is_first || !change.is_of(quoted, end) {
            return false;
        }
        let Some(checksum) = self.checksum_of(quoted, transport, end) else { return false };
        change.make(quoted, end);
        // A router quotes as little as 8 bytes of it.
        if quoted.len() >= checksum + 2 {
            let old = u16_at(quoted, checksum);
            change.cover(quoted, checksum, Covers::All);
            let sum = add(add(!u16_at(head, ICMP_CHECKSUM), !old), u16_at(quoted, checksum));
            put_u16(head, ICMP_CHECKSUM, !sum);
        }
        true
    }

    /// Where the transport's checksum stands, or would, in a packet whose port at `end` is one of these.
    fn checksum_of(&self, packet: &[u8], transport: usize, end: End) -> Option<usize> {
        let (ports, checksum) = match packet[PROTOCOL] {
            TCP => (&self.tcp, TCP_CHECKSUM),
            UDP => (&self.udp, UDP_CHECKSUM),
            _ => return None,
        };
        let has_ports = packet.len() >= transport + 8;
        (has_ports && ports.contains(&u16_at(packet, transport + end.port()))).then_some(transport + checksum)
    }
}

impl End {
    /// Where its address stands in an IPv4 header.
    fn address(self) -> usize {
        if self == Self::Source { 12 } else { 16 }
    }

    /// Where its port stands in a transport header.
    fn port(self) -> usize {
        if self == Self::Source { 0 } else { 2 }
    }

    fn other(self) -> Self {
        if self == Self::Source { Self::Destination } else { Self::Source }
    }
}

impl Change {
    fn is_of(self, packet: &[u8], end: End) -> bool {
        packet[end.address()..][..4] == self.old
    }

    /// In the address, and in its header's checksum.
    fn make(self, packet: &mut [u8], end: End) {
        packet[end.address()..][..4].copy_from_slice(&self.new);
        let sum = !self.updated(!u16_at(packet, HEADER_CHECKSUM));
        put_u16(packet, HEADER_CHECKSUM, sum);
    }

    /// In a transport's checksum at `at`.
    fn cover(self, packet: &mut [u8], at: usize, covers: Covers) {
        let is_udp = packet[PROTOCOL] == UDP;
        let sum = u16_at(packet, at);
        match covers {
            Covers::PseudoHeader => put_u16(packet, at, self.updated(sum)),
            // Of UDP, 0 says that there is none (RFC 768).
            Covers::All if is_udp && sum == 0 => {}
            Covers::All => {
                let new = !self.updated(!sum);
                put_u16(packet, at, if is_udp && new == 0 { 0xffff } else { new });
            }
        }
    }

    fn updated(self, sum: u16) -> u16 {
        let word = |of: [u8; 4], at: usize| u16::from_be_bytes([of[at], of[at + 1]]);
        let words = [0, 2].map(|at| (word(self.old, at), word(self.new, at)));
        words.into_iter().fold(sum, |sum, (old, new)| add(add(sum, !old), new))
    }
}

/// Where the transport header begins in what begins with an IPv4 header.
fn transport_of(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let len = usize::from(first & 15) * 4;
    (first >> 4 == 4 && len >= 20 && packet.len() >= len).then_some(len)
}

/// The ones' complement sum, of which a checksum is made word by word (RFC 1624, eqn. 3).
fn add(a: u16, b: u16) -> u16 {
    let (sum, carries) = a.overflowing_add(b);
    sum + u16::from(carries)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use lattice_netstack::datagram;

    use super::{super::vnet::checksum, *};

    fn ports() -> LoopbackPorts {
        LoopbackPorts { own: [10, 42, 0, 3].into(), tcp: vec![8080], udp: vec![8080] }
    }

    fn packet(from: &str, to: &str) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let mut packet = vec![0; datagram::packet_len(to, 33)];
        datagram::write(&mut packet, from, to, &[0xa5; 33]);
        packet
    }

    #[test]
    fn a_port_is_led_inward_and_its_answer_outward_with_right_sums() {
        let (peer, own, loopback) = ("10.42.0.2:4711", "10.42.0.3:8080", "127.0.0.1:8080");
        let mut there = packet(peer, own);
        ports().inward(&mut there);
        assert_eq!(there, packet(peer, loopback));
        let mut back = packet(loopback, peer);
        ports().outward(&mut back, Covers::All);
        assert_eq!(back, packet(own, peer));
        // As the kernel hands it over: with the sum of the pseudo-header alone.
        let partial = |from: &str| {
            let mut packet = packet(from, peer);
            let sum = checksum::pseudo_header(&packet, 20, UDP);
            packet[26..28].copy_from_slice(&checksum::fold(sum).to_ne_bytes());
            packet
        };
        let mut back = partial(loopback);
        ports().outward(&mut back, Covers::PseudoHeader);
        assert_eq!(back, partial(own));
    }

    #[test]
    fn nothing_else_is_touched() {
        let peer = "10.42.0.2:4711";
        for (from, to) in [
            (peer, "10.42.0.3:8081"),
            (peer, "10.42.0.4:8080"),
            ("127.0.0.1:8081", peer),
            ("127.0.0.2:8080", peer),
            ("10.42.0.3:8080", peer),
            ("[fd00::2]:4711", "[fd00::3]:8080"),
        ] {
            let before = packet(from, to);
            let mut after = before.clone();
            ports().inward(&mut after);
            ports().outward(&mut after, Covers::All);
            assert_eq!(after, before, "{from} {to}");
        }
        let whole = packet(peer, "10.42.0.3:8080");
        for len in 0..28 {
            let mut cut = whole[..len].to_vec();
            ports().inward(&mut cut);
            assert_eq!(cut, whole[..len]);
        }
        for flags in [0x2000, 0x2010, 0x0010] {
            let mut fragment = whole.clone();
            set_fragment(&mut fragment, flags);
            let before = fragment.clone();
            ports().inward(&mut fragment);
            assert_eq!(fragment, before, "{flags:x}");
        }
    }

    #[test]
    fn an_answer_goes_out_in_all_its_fragments() {
        let (loopback, own, peer) = ("127.0.0.1:8080", "10.42.0.3:8080", "10.42.0.2:4711");
        for flags in [0x2000, 0x2010, 0x0010] {
            let (mut fragment, mut expected) = (packet(loopback, peer), packet(own, peer));
            [&mut fragment, &mut expected].into_iter().for_each(|packet| set_fragment(packet, flags));
            if flags & OFFSET != 0 {
                // What stands there is data.
                let at = 20 + UDP_CHECKSUM;
                expected[at..at + 2].copy_from_slice(&fragment[at..at + 2]);
            }
            ports().outward(&mut fragment, Covers::All);
            assert_eq!(fragment, expected, "{flags:x}");
        }
    }

    #[test]
    fn an_error_is_led_by_what_it_quotes() {
        let (peer, own, loopback) = ("10.42.0.2:4711", "10.42.0.3:8080", "127.0.0.1:8080");
        let (near, far, router) = ("127.0.0.1", "10.42.0.2", "10.42.0.9");
        for quoted in [28, 61] {
            let mut out = error(near, far, &packet(peer, loopback)[..quoted]);
            ports().outward(&mut out, Covers::All);
            assert_eq!(out, error("10.42.0.3", far, &packet(peer, own)[..quoted]));
            let mut back = error(router, "10.42.0.3", &packet(own, peer)[..quoted]);
            ports().inward(&mut back);
            assert_eq!(back, error(router, near, &packet(loopback, peer)[..quoted]));
        }
        for quoted in
            [&packet(peer, "127.0.0.1:8081")[..], &packet(peer, own), &packet(peer, loopback)[..27], &[]]
        {
            let before = error(near, far, quoted);
            let mut after = before.clone();
            ports().outward(&mut after, Covers::All);
            assert_eq!(after, before);
        }
        let mut ping = error(near, far, &packet(peer, loopback));
        ping[20] = 8;
        let before = ping.clone();
        ports().outward(&mut ping, Covers::All);
        assert_eq!(ping, before);
    }

    fn set_fragment(packet: &mut [u8], flags: u16) {
        put_u16(packet, FRAGMENT, flags);
        seal(packet, HEADER_CHECKSUM, 20);
    }

    /// Port unreachable.
    fn error(from: &str, to: &str, quoted: &[u8]) -> Vec<u8> {
        let mut error = packet(&format!("{from}:1"), &format!("{to}:1"));
        error.truncate(20);
        error[PROTOCOL] = ICMP;
        error.extend([3, 3, 0, 0, 0, 0, 0, 0]);
        error.extend(quoted);
        let len = error.len() as u16;
        put_u16(&mut error, 2, len);
        seal(&mut error, HEADER_CHECKSUM, 20);
        let len = error.len() - 20;
        seal(&mut error[20..], ICMP_CHECKSUM, len);
        error
    }

    /// Writes the checksum of the first `len` bytes at `at`.
    fn seal(bytes: &mut [u8], at: usize, len: usize) {
        put_u16(bytes, at, 0);
        let sum = checksum::finish(checksum::sum(&bytes[..len]));
        bytes[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
    }
}
