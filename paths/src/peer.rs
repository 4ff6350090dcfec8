//! What is kept of a peer while nothing goes on: little, because there may be ten thousand.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::WgPublicKey;
use lattice_wireguard::Path;

use crate::{address, session::Session, shared::PathPeer};

/// How long a direct path that WireGuard found by itself is trusted after its last packet.
const FRESH: Duration = Duration::from_secs(2);

/// A peer of the map.
pub(crate) struct Peer {
    pub(crate) key: WgPublicKey,
    /// Of the two ends, the one with the smaller key decides (RFC 8445 calls it controlling). So the roles cannot conflict.
    pub(crate) we_control: bool,
    pub(crate) endpoints: Box<[SocketAddr]>,
    /// The relays of its last session.
    pub(crate) relays: Option<Box<[String]>>,
    pub(crate) selected: Option<Path>,
    pub(crate) since: Option<Instant>,
    pub(crate) seen_direct: Option<(Path, Instant)>,
    pub(crate) session: Option<Box<Session>>,
    /// Its entry in the queue of timers.
    pub(crate) due: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(peer: &PathPeer, we_control: bool) -> Self {
        Self {
            key: peer.key,
            we_control,
            endpoints: endpoints(peer),
            relays: None,
            selected: None,
            since: None,
            seen_direct: None,
            session: None,
            due: None,
        }
    }

    /// Says whether that is news.
    pub(crate) fn set_endpoints(&mut self, peer: &PathPeer) -> bool {
        let endpoints = endpoints(peer);
        let changed = self.endpoints != endpoints;
        self.endpoints = endpoints;
        changed
    }

    /// Until when the path that WireGuard found by itself is good.
    pub(crate) fn fresh_until(&self) -> Option<Instant> {
        self.seen_direct.map(|(_, at)| at + FRESH)
    }
}

fn endpoints(peer: &PathPeer) -> Box<[SocketAddr]> {
    let usable = peer.endpoints.iter().take(lattice_wire::netmap::MAX_ENDPOINTS);
    usable.map(|endpoint| address::canonical(*endpoint)).collect()
}
