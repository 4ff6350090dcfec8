//! The device that smoltcp believes to have: one packet in, and one out, in a buffer that all flows share.
//!
//! Every flow's smoltcp sees the same two IPv4 addresses. So IPv4 and IPv6 are the same to it, it never reads an IP header
//! that a stranger wrote, and its segmentation offload, which in 0.14 loses large segments of IPv6, serves both.

use std::num::NonZeroUsize;

use smoltcp::{
    iface::{Config, Interface},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken},
    time::Instant,
    wire::{HardwareAddress, IpCidr, Ipv4Address},
};

/// Who every flow is to its smoltcp, and who its peer is.
pub(super) const LOCAL: Ipv4Address = Ipv4Address::new(192, 0, 2, 1);
pub(super) const REMOTE: Ipv4Address = Ipv4Address::new(192, 0, 2, 2);

/// Bytes of the IP header between smoltcp and us.
pub(super) const HEADER: usize = 20;

/// The longest packet that smoltcp makes of a stream. What IPv4 can say, less what may be put before it.
const LARGEST: usize = 65_000;

/// Bytes before the packet, for the end of the one before it: less than any MTU.
const BEFORE: usize = 65_535;

/// Where smoltcp writes a packet.
pub(crate) struct Scratch {
    pub(super) buffer: Box<[u8]>,
    /// The packet's length; 0 for none.
    pub(super) len: usize,
    /// Bytes of data for each segment that the packet is to be cut into; 0 if it is one.
    pub(super) segment: usize,
}

impl Scratch {
    /// Where the packet begins.
    pub(super) const AT: usize = BEFORE;

    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BEFORE + LARGEST].into(), len: 0, segment: 0 }
    }

    /// Room for any packet, while smoltcp has none here.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}

/// The device, for one call of smoltcp.
pub(super) struct Link<'a> {
    pub(super) incoming: Option<&'a [u8]>,
    pub(super) scratch: &'a mut Scratch,
    /// The flow's MTU as if it were IPv4.
    pub(super) mtu: usize,
}

/// An interface to such a device. `seed` gives the initial sequence number.
pub(super) fn interface(mtu: usize, seed: u64, scratch: &mut Scratch, now: Instant) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut Link { incoming: None, scratch, mtu }, now);
    interface.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::new(LOCAL.into(), 24)).expect("room for one address");
    });
    interface
}

impl Device for Link<'_> {
    type RxToken<'a>
        = Incoming<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = &'a mut Scratch
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, &mut Scratch)> {
        Some((Incoming(self.incoming.take()?), self.scratch))
    }

    fn transmit(&mut self, _: Instant) -> Option<&mut Scratch> {
        (self.scratch.len == 0).then_some(&mut *self.scratch)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(LARGEST);
        capabilities
    }
}

/// A packet for smoltcp.
pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl TxToken for &mut Scratch {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        self.len = len;
        write(&mut self.buffer[Scratch::AT..][..len])
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map_or(0, |size| size.get().into());
    }
}
