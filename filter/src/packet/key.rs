//! What tells flows apart.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// One key for both directions of a flow. ICMP echo has its identifier in `local_port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FlowKey {
    /// The agent's end, as a number; of an IPv4 address only the lowest 32 bits are used.
    pub(crate) local: u128,
    pub(crate) remote: u128,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) proto: u8,
    /// 4 or 6; 0 when the packet could not be read so far.
    pub(crate) family: u8,
}

impl FlowKey {
    pub(crate) fn local(&self) -> IpAddr {
        ip(self.family, self.local)
    }

    pub(crate) fn remote(&self) -> IpAddr {
        ip(self.family, self.remote)
    }
}

// One write instead of six: a hasher pays for each.
impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 38];
        bytes[..16].copy_from_slice(&self.local.to_ne_bytes());
        bytes[16..32].copy_from_slice(&self.remote.to_ne_bytes());
        bytes[32..34].copy_from_slice(&self.local_port.to_ne_bytes());
        bytes[34..36].copy_from_slice(&self.remote_port.to_ne_bytes());
        bytes[36..].copy_from_slice(&[self.proto, self.family]);
        state.write(&bytes);
    }
}

/// Family and number of an address.
pub(crate) fn address(ip: IpAddr) -> (u8, u128) {
    match ip {
        IpAddr::V4(ip) => (4, ip.to_bits().into()),
        IpAddr::V6(ip) => (6, ip.to_bits()),
    }
}

fn ip(family: u8, number: u128) -> IpAddr {
    if family == 6 { Ipv6Addr::from_bits(number).into() } else { Ipv4Addr::from_bits(number as u32).into() }
}
