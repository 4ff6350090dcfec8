//! Packets by hand, as somebody would write them who means harm.

use std::net::{IpAddr, SocketAddr};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// A TCP segment in IPv4 or IPv6.
#[derive(Debug, Clone)]
pub(crate) struct Tcp {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) payload: Vec<u8>,
}

impl Tcp {
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let (v6, at) = (packet[0] >> 4 == 6, if packet[0] >> 4 == 6 { 40 } else { 20 });
        if packet[if v6 { 6 } else { 9 }] != 6 {
            return None;
        }
        let address = |at: usize| -> IpAddr {
            if v6 {
                <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into()
            } else {
                <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into()
            }
        };
        let (source, destination) = if v6 { (address(8), address(24)) } else { (address(12), address(16)) };
        let segment = &packet[at..];
        let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
        Some(Self {
            from: SocketAddr::new(source, word(0)),
            to: SocketAddr::new(destination, word(2)),
            sequence: long(4),
            acknowledgement: long(8),
            flags: segment[13],
            window: word(14),
            payload: segment[usize::from(segment[12] >> 4) * 4..].to_vec(),
        })
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.from.port().to_be_bytes());
        segment.extend(self.to.port().to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgement.to_be_bytes());
        segment.extend([0x50, self.flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(&self.payload);
        packet(self.from.ip(), self.to.ip(), 6, segment, Some(16))
    }
}

/// A packet, with the checksum of its payload at `checksum`.
pub(crate) fn packet(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    mut payload: Vec<u8>,
    checksum: Option<usize>,
) -> Vec<u8> {
    if let Some(at) = checksum {
        let mut pseudo = Vec::new();
        // ICMP has none in IPv4.
        if protocol != 1 {
            octets(from, &mut pseudo);
            octets(to, &mut pseudo);
            pseudo.extend([0, protocol]);
            pseudo.extend((payload.len() as u16).to_be_bytes());
        }
        pseudo.extend(&payload);
        let sum = sum(&pseudo);
        payload[at..at + 2].copy_from_slice(&sum);
    }
    let len = payload.len() as u16;
    let mut packet = match from {
        IpAddr::V4(_) => {
            let mut head = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
            head[2..4].copy_from_slice(&(len + 20).to_be_bytes());
            head
        }
        IpAddr::V6(_) => {
            let mut head = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            head[4..6].copy_from_slice(&len.to_be_bytes());
            head
        }
    };
    octets(from, &mut packet);
    octets(to, &mut packet);
    if from.is_ipv4() {
        let sum = sum(&packet);
        packet[10..12].copy_from_slice(&sum);
    }
    packet.extend(payload);
    packet
}

/// ICMP's or ICMPv6's message with that type, code and second word, about a packet.
pub(crate) fn icmp(from: IpAddr, to: IpAddr, kind: [u8; 2], word: u32, about: &[u8]) -> Vec<u8> {
    let mut message = vec![kind[0], kind[1], 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(about);
    packet(from, to, if from.is_ipv4() { 1 } else { 58 }, message, Some(2))
}

fn octets(address: IpAddr, to: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => to.extend(v4.octets()),
        IpAddr::V6(v6) => to.extend(v6.octets()),
    }
}

fn sum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 =
        bytes.chunks(2).map(|word| u32::from(word[0]) * 256 + u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
