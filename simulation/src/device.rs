//! What a node runs, as the simulation sees it: everything that happens to it goes in by one function, and what it does about
//! that comes out.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use lattice_wire::{WgPublicKey, signal::Signal};
use lattice_wireguard::{Path, RelayNumber};

/// The UDP port of every node.
pub const PORT: u16 = 51820;

/// A peer as the control plane tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its key.
    pub key: WgPublicKey,
    /// Its address in the overlay.
    pub overlay: Ipv4Addr,
    /// What it says of its own addresses.
    pub endpoints: Vec<SocketAddr>,
}

/// What happens to a device.
#[derive(Debug)]
pub enum Input<'a> {
    /// These are its peers from now on.
    Map(&'a [Member]),
    /// Its host has these addresses from now on.
    Addresses(&'a [IpAddr]),
    /// A datagram came.
    Datagram {
        /// At which address of its host.
        local: SocketAddr,
        /// From where.
        remote: SocketAddr,
        /// What.
        bytes: &'a [u8],
    },
    /// A relay brought a datagram.
    Relayed {
        /// Which relay.
        relay: RelayNumber,
        /// From whom.
        from: WgPublicKey,
        /// What.
        bytes: &'a [u8],
    },
    /// The connection with a relay was made, or lost.
    Relay {
        /// Which relay.
        relay: RelayNumber,
        /// How long it takes there and back; `None` when it was lost.
        round_trip: Option<Duration>,
    },
    /// A signal came.
    Signal {
        /// From whom.
        from: WgPublicKey,
        /// What.
        signal: Signal,
    },
    /// The host has a packet for the overlay.
    Packet(&'a [u8]),
    /// It was suspended, or is a copy of what was, and runs again.
    Resumed,
    /// The time it waited for has come.
    Timeout,
}

/// What a device does.
#[derive(Debug)]
pub enum Effect {
    /// Sends a datagram.
    Datagram {
        /// From which address; `None` leaves it to the host.
        local: Option<IpAddr>,
        /// Where to.
        remote: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Has a relay bring a datagram to a peer.
    Relayed {
        /// Which relay.
        relay: RelayNumber,
        /// To whom.
        to: WgPublicKey,
        /// What.
        bytes: Vec<u8>,
    },
    /// Tells a peer something by the signalling service.
    Signal {
        /// To whom.
        to: WgPublicKey,
        /// What.
        signal: Signal,
    },
    /// Hands its host a packet of the overlay.
    Packet(Vec<u8>),
}

/// What a node runs.
pub trait Device {
    /// Takes what happened; adds what it does about it to `out`.
    fn handle(&mut self, input: Input<'_>, now: Instant, out: &mut Vec<Effect>);
    /// When it wants [`Input::Timeout`].
    fn poll_timeout(&self) -> Option<Instant>;
    /// By which path it sends to a peer, as far as it knows.
    fn path(&self, peer: &WgPublicKey) -> Option<Path>;
    /// What to tell a reader of a trace about its state.
    fn describe(&self) -> String;
}
