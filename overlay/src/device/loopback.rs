//! Ports of the link's own address that are those of the host's loopback behind it: a service that listens on 127.0.0.1 alone is reached by peers
//! there, and sees who they are.
//!
//! ```text
//!   peer ─► 10.42.0.3:8080 ─► filter ─► 127.0.0.1:8080 ─► tun          peer ◄─ 10.42.0.3:8080 ◄─ filter ◄─ 127.0.0.1:8080 ◄─ tun
//! ```
//!
//! No state is kept: of what comes in the destination is another one by its port, of what goes out the source, so that the filter and its records
//! know only the link's own address. The host behind must route 127.0.0.0/8 by the link (`route_localnet`, `Documentation/networking/ip-sysctl.rst`);
//! there is no such thing for IPv6. An ICMP error from a router about such a flow names an address that the host does not know of, and
//! counts for nothing. Pure.

use std::net::Ipv4Addr;

use super::vnet::{TCP, TCP_CHECKSUM, UDP, UDP_CHECKSUM, put_u16, u16_at};

const LOCALHOST: [u8; 4] = Ipv4Addr::LOCALHOST.octets();

/// Where addresses stand in an IPv4 header (RFC 791, 3.1).
const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const HEADER_CHECKSUM: usize = 10;

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

impl LoopbackPorts {
    /// Leads a packet that comes in to the host's loopback, if it is for one of the ports.
    pub(super) fn inward(&self, packet: &mut [u8]) {
        self.lead(packet, (DESTINATION, 2), self.own.octets(), LOCALHOST, Covers::All);
    }

    /// Gives a packet that goes out from one of the ports on loopback the link's own address.
    pub(super) fn outward(&self, packet: &mut [u8], covers: Covers) {
        self.lead(packet, (SOURCE, 0), LOCALHOST, self.own.octets(), covers);
    }

    /// Replaces `old` by `new`: the address that stands in `packet` at the first place, if its port at the second one, from the transport header on,
    /// is one of these.
    fn lead(
        &self,
        packet: &mut [u8],
        (address, port): (usize, usize),
        old: [u8; 4],
        new: [u8; 4],
        covers: Covers,
    ) {
        // IPv4, and no fragment: only the first has ports.
        if packet.len() < 20 || packet[0] >> 4 != 4 || u16_at(packet, 6) & 0x3fff != 0 {
            return;
        }
        let transport = usize::from(packet[0] & 15) * 4;
        let (ports, checksum) = match packet[9] {
            TCP => (&self.tcp, TCP_CHECKSUM),
            UDP => (&self.udp, UDP_CHECKSUM),
            _ => return,
        };
        if packet[address..address + 4] != old || transport < 20 || packet.len() < transport + checksum + 2 {
            return;
        }
        if !ports.contains(&u16_at(packet, transport + port)) {
            return;
        }
        packet[address..address + 4].copy_from_slice(&new);
        let word = |of: [u8; 4], at: usize| u16::from_be_bytes([of[at], of[at + 1]]);
        let changes = [(word(old, 0), word(new, 0)), (word(old, 2), word(new, 2))];
        let updated = |sum: u16| changes.into_iter().fold(sum, |sum, (old, new)| add(add(sum, !old), new));
        let header = !updated(!u16_at(packet, HEADER_CHECKSUM));
        put_u16(packet, HEADER_CHECKSUM, header);
        let at = transport + checksum;
        let sum = u16_at(packet, at);
        match covers {
            Covers::PseudoHeader => put_u16(packet, at, updated(sum)),
            // Of UDP, 0 says that there is none (RFC 768).
            Covers::All if packet[9] == UDP && sum == 0 => {}
            Covers::All => {
                let new = !updated(!sum);
                put_u16(packet, at, if packet[9] == UDP && new == 0 { 0xffff } else { new });
            }
        }
    }
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

    use super::*;

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
            let sum = super::super::vnet::checksum::pseudo_header(&packet, 20, UDP);
            packet[26..28].copy_from_slice(&super::super::vnet::checksum::fold(sum).to_ne_bytes());
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
        let mut fragment = whole.clone();
        fragment[6] = 0x20;
        let before = fragment.clone();
        ports().inward(&mut fragment);
        assert_eq!(fragment, before);
    }
}
