//! The ways between two peers.

use std::net::{IpAddr, SocketAddr};

use lattice_wire::WgPublicKey;

/// Which relay, as the device's owner numbers them; stays the same while the device lives.
pub type RelayNumber = u16;

/// Where a datagram comes from or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// From address to address.
    Direct {
        /// The other end.
        remote: SocketAddr,
        /// Which address of ours that end knows; `None` leaves the choice to the kernel. Where there are several, an answer
        /// from another one would not pass the NAT or firewall that the question went through.
        local: Option<IpAddr>,
    },
    /// By a relay, which knows its clients by their keys.
    Relay {
        /// The relay.
        relay: RelayNumber,
        /// The other end.
        peer: WgPublicKey,
    },
}

impl Path {
    /// To `remote`, from whichever address the kernel chooses.
    pub fn to(remote: SocketAddr) -> Self {
        Self::Direct { remote, local: None }
    }

    /// The other end's address, where the path is direct.
    pub fn remote(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct { remote, .. } => Some(*remote),
            Self::Relay { .. } => None,
        }
    }
}
