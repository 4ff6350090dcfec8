//! What goes in and out, and what all peers share.

use std::{collections::VecDeque, net::SocketAddr};

use ipnet::IpNet;
use lattice_wire::WgPublicKey;
use lattice_wireguard::Path;

use crate::{
    gather::Gather,
    limits::{ALL_PROBES, ALL_PROBES_BURST, Bucket, MAX_TRANSMITS},
    relays::Relays,
};

/// Who we are.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our key: of two peers, the one with the smaller key chooses the pair.
    pub key: WgPublicKey,
    /// The overlay's own addresses, which never are a peer's endpoint.
    pub pool: Vec<IpNet>,
}

/// A peer of the network map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPeer {
    /// Its WireGuard key, by which it is called everywhere here.
    pub key: WgPublicKey,
    /// Where the map says that it may be; the first [`lattice_wire::netmap::MAX_ENDPOINTS`] count.
    pub endpoints: Vec<SocketAddr>,
}

/// A STUN message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Which of the addresses given to [`crate::Paths::set_local`] to send from.
    pub local: SocketAddr,
    /// Where to.
    pub remote: SocketAddr,
    /// The datagram.
    pub payload: Vec<u8>,
}

/// News for the WireGuard layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Send to `peer` by `path` from now on.
    Select {
        /// The peer.
        peer: WgPublicKey,
        /// `None`: search by yourself, among the map's endpoints. That is also the state before the first such event.
        path: Option<Path>,
    },
    /// Nothing is known of the path to `peer` any more, which has had no traffic for a while: what was selected holds until the next
    /// [`crate::Paths::wants`], which has to hear of the next packet.
    Ended {
        /// The peer.
        peer: WgPublicKey,
    },
}

pub(crate) type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What all peers share.
pub(crate) struct Shared {
    pub(crate) key: WgPublicKey,
    pub(crate) pool: Vec<IpNet>,
    pub(crate) random: Random,
    pub(crate) tie_breaker: u64,
    pub(crate) gather: Gather,
    pub(crate) relays: Relays,
    pub(crate) probes: Bucket,
    pub(crate) transmits: VecDeque<Transmit>,
}

impl Shared {
    pub(crate) fn new(config: Config, mut random: Random) -> Self {
        let mut tie_breaker = [0; 8];
        random(&mut tie_breaker);
        Self {
            key: config.key,
            pool: config.pool,
            random,
            tie_breaker: u64::from_le_bytes(tie_breaker),
            gather: Gather::default(),
            relays: Relays::default(),
            probes: Bucket::per_second(ALL_PROBES_BURST, ALL_PROBES),
            transmits: VecDeque::new(),
        }
    }

    pub(crate) fn transmit(&mut self, transmit: Transmit) {
        if self.transmits.len() >= MAX_TRANSMITS {
            self.transmits.pop_front();
        }
        self.transmits.push_back(transmit);
    }
}
