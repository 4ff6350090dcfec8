//! What a name stood for when the agent asked: how allow rules by name reach enforcers, which know addresses only.

use std::net::IpAddr;

use crate::{Direction, Match, Packet, Verdict};

/// An address that the sandbox's resolver gave to the agent, and what the rules by that name allow there.
///
/// A table is asked first. Only where nothing in it fits a packet ([`Reason::DefaultDeny`](crate::Reason::DefaultDeny)) are
/// the lines of a pin, so that no name opens what an address rule, or a built-in one, denies. Pins are for egress. A flow
/// that was let in while the pin held lives on after it, as long as the policy stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The address. Never IPv4-mapped.
    pub address: IpAddr,
    /// Allow lines, in order; the first that fits decides. At most [`Pin::MAX_LINES`].
    pub matches: Vec<Match>,
    /// The end of it, in nanoseconds of `CLOCK_BOOTTIME`.
    pub until_ns: u64,
}

impl Pin {
    /// Most lines of one pin.
    pub const MAX_LINES: usize = 6;

    /// Most addresses that are pinned at a time.
    pub const MAX: usize = 4096;
}

/// What `pins` say about a packet that nothing else fits. Their ends are not looked at: there is no clock here.
pub(crate) fn lookup(packet: &Packet, pins: &[Pin]) -> Verdict {
    let packet = packet.canonical();
    let Some(proto) = packet.proto() else { return Verdict::PROTOCOL };
    let pin = pins.iter().find(|pin| packet.direction == Direction::Egress && pin.address == packet.remote);
    let line = pin.and_then(|pin| pin.matches.iter().find(|line| line.fits(proto, packet.port)));
    line.map_or(Verdict::DEFAULT, |line| Verdict::of(line.action, line.rule))
}
