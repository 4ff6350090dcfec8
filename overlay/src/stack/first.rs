//! The first packet of a flow, for the filter to judge before there is a flow, or where there never will be one of ours. It is never sent:
//! what the filter does not look at is not there.

use std::net::{IpAddr, SocketAddr};

use super::Transport;

/// The longest: IPv6 and TCP.
const MOST: usize = 40 + 20;

/// A TCP segment with SYN alone, an empty UDP datagram, or an echo request without data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct First {
    bytes: [u8; MOST],
    len: usize,
}

impl First {
    /// From `from` to `to`, which are of one IP version; of another, nothing that could pass.
    pub(crate) fn new(transport: Transport, from: SocketAddr, to: SocketAddr) -> Self {
        let (proto, payload) = match transport {
            Transport::Tcp => (6, 20),
            Transport::Udp => (17, 8),
            Transport::Icmp if from.is_ipv4() => (1, 8),
            Transport::Icmp => (58, 8),
        };
        let mut bytes = [0; MOST];
        let at = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                (bytes[0], bytes[3], bytes[8], bytes[9]) = (0x45, 20 + payload, 64, proto);
                bytes[12..16].copy_from_slice(&from.octets());
                bytes[16..20].copy_from_slice(&to.octets());
                20
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                (bytes[0], bytes[5], bytes[6], bytes[7]) = (0x60, payload, proto, 64);
                bytes[8..24].copy_from_slice(&from.octets());
                bytes[24..40].copy_from_slice(&to.octets());
                40
            }
            _ => return Self { bytes, len: 0 },
        };
        if transport == Transport::Icmp {
            bytes[at] = if from.is_ipv4() { 8 } else { 128 };
            bytes[at + 4..at + 6].copy_from_slice(&from.port().to_be_bytes());
            return Self { bytes, len: at + usize::from(payload) };
        }
        bytes[at..at + 2].copy_from_slice(&from.port().to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&to.port().to_be_bytes());
        match transport {
            Transport::Tcp => (bytes[at + 12], bytes[at + 13]) = (5 << 4, 2),
            Transport::Udp | Transport::Icmp => bytes[at + 5] = payload,
        }
        Self { bytes, len: at + usize::from(payload) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
