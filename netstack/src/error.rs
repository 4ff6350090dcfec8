//! Why a call could not do what it was to do.

use std::net::{IpAddr, SocketAddr};

/// What a call of the owner's could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing to read, or no room to write, now. An event says when to try again.
    #[error("the flow is not ready; wait for its event")]
    WouldBlock,
    /// The flow has ended, or its owner has closed it.
    #[error("the flow has ended")]
    Ended,
    /// This side has already said that it sends no more.
    #[error("the flow's sending side has been shut down")]
    ShutDown,
    /// The remote address is none that can be reached from here.
    #[error("cannot reach {0}: no host's address, or of an IP version of which this stack has no address")]
    Unreachable(SocketAddr),
    /// A limit of [`Limits`](crate::Limits) is reached.
    #[error("{0} is reached; close some, or raise the limit")]
    Limit(&'static str),
    /// The UDP port, or each that is not named, is taken.
    #[error("UDP port {0} is taken; choose another, or 0 for any")]
    PortTaken(u16),
    /// No socket is bound to the UDP port.
    #[error("no socket is bound to UDP port {0}; bind one first")]
    NotBound(u16),
    /// A datagram that does not fit into one packet.
    #[error("a datagram of {len} bytes does not fit; {most} is the most to this address")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest that fits.
        most: usize,
    },
    /// A configuration of which no stack can be made.
    #[error("MTU {mtu} is too small for {address}; 576 is the least for IPv4, 1280 for IPv6")]
    Mtu {
        /// The MTU.
        mtu: u16,
        /// The address.
        address: IpAddr,
    },
    /// An address that is none of one host.
    #[error("{0} is no host's address; give the stack a unicast address")]
    Address(IpAddr),
    /// Less memory than all flows together are sure of.
    #[error("{memory} bytes of memory are too little for {flows} flows; give at least 32 KiB for each")]
    Memory {
        /// [`Limits::memory`](crate::Limits::memory).
        memory: usize,
        /// [`Limits::flows`](crate::Limits::flows).
        flows: usize,
    },
}
