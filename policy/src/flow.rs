//! What an enforcer tells about a packet, whichever enforcer it is.

use std::net::SocketAddr;

use crate::{Action, Direction, Reason, RuleId};

/// One verdict: a newly allowed flow, or a packet of a denied one (the same flow is told at most once a second).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// When, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Which way the packet went, seen from the agent.
    pub direction: Direction,
    /// What happened to it.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Which rule decided; 0 when none did.
    pub rule: RuleId,
    /// The generation of the policy that decided; 0 when no policy was live.
    pub generation: u32,
    /// IP protocol number; 0 when the packet is not IP.
    pub proto: u8,
    /// Source of the packet; port 0 where the protocol has none. `0.0.0.0:0` when the packet is not IP.
    pub src: SocketAddr,
    /// Destination of the packet, likewise.
    pub dst: SocketAddr,
    /// Length of the packet from its IP header on. A segmentation-offloaded packet counts as a whole.
    pub bytes: u32,
    /// Index of the link in the agent's network namespace; 0 where the enforcer does not know it.
    pub link: u32,
}

/// What a rule decided about since its policy came into force: first packets, and those of the flows it let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// Packets. A segmentation-offloaded one counts once.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}
