//! What the program and its loader say to each other; `bpf/abi.h` is the other side. Both assert every size and offset.
#![allow(unsafe_code)] // the layout of kernel maps: `aya::Pod` is an unsafe trait

use std::{
    mem::{offset_of, size_of},
    net::IpAddr,
};

use aya::Pod;
use lattice_policy::{Direction, Proto};

/// Part of the pin path: maps of another layout are never taken over. Count it up with every change of `bpf/abi.h` or
/// `bpf/maps.h`.
pub(crate) const VERSION: u32 = 6;

/// Words of `CONFIG`; see `enum config_word`.
pub(crate) const CONFINED: u32 = 1;
/// See [`CONFINED`].
pub(crate) const CONFINED6: u32 = 2;
/// See [`CONFINED`].
pub(crate) const CONFINED6_MASK: u32 = 3;
/// See [`CONFINED`].
pub(crate) const CONFINED_TO: u32 = 4;

/// Policies in the maps; see `CONFIG` in `bpf/maps.h`.
pub(crate) const SLOTS: u32 = 4;
pub(crate) const INLINE_RANGES: usize = 6;
/// The map `PINS` has room for those of every slot.
const _: () = assert!(lattice_policy::Pin::MAX == 4096 && lattice_policy::Pin::MAX_LINES == INLINE_RANGES);
/// In `OWN`: an address that is the sandbox's on every link.
pub(crate) const ANY_LINK: u32 = 0;
/// Capacity of the map `OWN`.
pub(crate) const MAX_OWN: usize = 64;
/// Rules below this number are counted in `COUNTERS`, of which an even and an odd epoch have one half each.
pub(crate) const COUNTED_RULES: u32 = 512;
/// Capacity of `HIGH_COUNTERS`, where the others are.
#[cfg(test)]
pub(crate) const HIGH_COUNTERS: u32 = 512;
/// Indices of [`Stats`] that count what did not fit. Every other is a `Reason`.
pub(crate) const LOST: usize = 0;
pub(crate) const UNTRACKED: usize = 14;
pub(crate) const UNCOUNTED: usize = 15;
pub(crate) const REASONS: usize = 16;

pub(crate) const ALLOW: u8 = 1;
pub(crate) const DENY: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;

/// In network order; an IPv4 address is the first four bytes, the others are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C, align(4))]
pub(crate) struct Address(pub(crate) [u8; 16]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub(crate) struct PrefixKey {
    pub(crate) slot: u8,
    pub(crate) direction: u8,
    pub(crate) family: u8,
    pub(crate) pad: u8,
    pub(crate) net: Address,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(crate) struct Range {
    pub(crate) lo: u16,
    pub(crate) hi: u16,
    pub(crate) proto: u8,
    pub(crate) action: u8,
    pub(crate) every_port: u8,
    pub(crate) pad: u8,
    pub(crate) rule: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(crate) struct PrefixValue {
    pub(crate) set: u32,
    pub(crate) count: u32,
    pub(crate) ranges: [Range; INLINE_RANGES],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(crate) struct Stats {
    pub(crate) count: [u64; REASONS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct PinKey {
    pub(crate) slot: u8,
    pub(crate) family: u8,
    pub(crate) pad: u16,
    pub(crate) address: Address,
}

/// `struct pin` with its lines.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct PinValue {
    /// The kernel's; always 0 here.
    pub(crate) lock: u32,
    pub(crate) pad: u32,
    pub(crate) until_ns: u64,
    pub(crate) epoch: u32,
    pub(crate) count: u32,
    pub(crate) ranges: [Range; INLINE_RANGES],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct CounterKey {
    pub(crate) epoch: u32,
    pub(crate) rule: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct CounterValue {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub(crate) struct PortKey {
    pub(crate) set: u32,
    pub(crate) proto: u8,
    pub(crate) slot: u8,
    pub(crate) port_be: [u8; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct PortValue {
    pub(crate) action: u32,
    pub(crate) rule: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub(crate) struct OwnKey {
    pub(crate) family: u32,
    pub(crate) address: Address,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct FlowKey {
    pub(crate) local: Address,
    pub(crate) remote: Address,
    pub(crate) local_port_be: [u8; 2],
    pub(crate) remote_port_be: [u8; 2],
    pub(crate) proto: u8,
    pub(crate) family: u8,
    pub(crate) pad: u16,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Event {
    pub(crate) at_ns: u64,
    pub(crate) flow: FlowKey,
    pub(crate) rule: u32,
    pub(crate) generation: u32,
    pub(crate) bytes: u32,
    pub(crate) link: u32,
    pub(crate) direction: u8,
    pub(crate) reason: u8,
    pub(crate) pad: [u8; 6],
}

const _: () = {
    assert!(size_of::<PrefixKey>() == 20 && offset_of!(PrefixKey, net) == 4);
    assert!(size_of::<Range>() == 12 && offset_of!(Range, proto) == 4);
    assert!(offset_of!(Range, every_port) == 6 && offset_of!(Range, rule) == 8);
    assert!(size_of::<PrefixValue>() == 80 && offset_of!(PrefixValue, ranges) == 8);
    assert!(size_of::<Stats>() == 128);
    assert!(size_of::<PinKey>() == 20 && offset_of!(PinKey, address) == 4);
    assert!(size_of::<PinValue>() == 96 && offset_of!(PinValue, until_ns) == 8);
    assert!(offset_of!(PinValue, epoch) == 16 && offset_of!(PinValue, ranges) == 24);
    assert!(size_of::<CounterKey>() == 8 && size_of::<CounterValue>() == 16);
    assert!(size_of::<PortKey>() == 8 && offset_of!(PortKey, port_be) == 6);
    assert!(size_of::<PortValue>() == 8);
    assert!(size_of::<OwnKey>() == 20);
    assert!(size_of::<FlowKey>() == 40 && offset_of!(FlowKey, local_port_be) == 32);
    assert!(offset_of!(FlowKey, proto) == 36);
    assert!(size_of::<Event>() == 72 && offset_of!(Event, rule) == 48);
    assert!(offset_of!(Event, bytes) == 56 && offset_of!(Event, direction) == 64);
};

// SAFETY: `repr(C)`, `Copy`, every field is an integer or an array of integers, and the asserted sizes leave no
// implicit padding.
unsafe impl Pod for PrefixKey {}
// SAFETY: as above.
unsafe impl Pod for PrefixValue {}
// SAFETY: as above.
unsafe impl Pod for PortKey {}
// SAFETY: as above.
unsafe impl Pod for PortValue {}
// SAFETY: as above.
unsafe impl Pod for OwnKey {}
// SAFETY: as above.
unsafe impl Pod for Stats {}
// SAFETY: as above.
unsafe impl Pod for PinKey {}
// SAFETY: as above.
unsafe impl Pod for PinValue {}
// SAFETY: as above.
unsafe impl Pod for CounterKey {}
// SAFETY: as above.
unsafe impl Pod for CounterValue {}

// === impl Address ===

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes = ip.octets(),
        }
        Self(bytes)
    }
}

impl Address {
    pub(crate) fn ip(self, family: u8) -> IpAddr {
        let [a, b, c, d, ..] = self.0;
        if family == 6 { self.0.into() } else { [a, b, c, d].into() }
    }
}

pub(crate) const fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 4 } else { 6 }
}

impl From<IpAddr> for OwnKey {
    fn from(ip: IpAddr) -> Self {
        Self { family: family(ip).into(), address: ip.into() }
    }
}

/// Where the lines and pins of the policy `epoch` are.
pub(crate) const fn slot(epoch: u32) -> u8 {
    (epoch % SLOTS) as u8
}

// === words of the policy ===

pub(crate) const fn direction(direction: Direction) -> u8 {
    match direction {
        Direction::Egress => 0,
        Direction::Ingress => 1,
    }
}

pub(crate) const fn proto(proto: Proto) -> u8 {
    match proto {
        Proto::Any => 0,
        Proto::Tcp => TCP,
        Proto::Udp => UDP,
        Proto::Icmp => ICMP,
    }
}

impl Event {
    /// Reads what the program wrote; `None` when the length is not that of an event.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length is that of `Event`, whose every bit pattern is valid; the read is unaligned.
        Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}
