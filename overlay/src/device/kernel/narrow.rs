//! Routes with a smaller MTU to peers that are reached by a relay, so that their packets fit what every relay carries by QUIC.
//!
//! Unlike an ICMP "too big", of which the kernel thinks for ten minutes, a route takes effect at once, on connections that stand too, and ends
//! with the path. It goes with the link, whatever becomes of us. What the kernel cut before it knew is dropped, and cut anew by TCP: the relay's
//! client would go by TCP for it, and not come back from that for ten minutes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;
use lattice_wire::{WgPublicKey, lrp};
use lattice_wireguard::Path;

use super::link::WgLink;
use crate::{
    device::{PeerConfig, core::RELAYED_MTU},
    link::{LimitedRoutes, LinkError},
};

/// The peers that are reached by a relay, and the routes to them.
#[derive(Debug)]
pub(super) struct Narrow {
    link: Arc<WgLink>,
    limits: LimitedRoutes,
    networks: HashMap<WgPublicKey, Vec<IpNet>>,
    relayed: HashSet<WgPublicKey>,
    routes: HashMap<WgPublicKey, Vec<IpNet>>,
}

impl Narrow {
    /// For a link of that MTU in bytes.
    pub(super) fn new(link: Arc<WgLink>, mtu: u16) -> Self {
        let limits = LimitedRoutes { link: link.name.clone(), mtu: RELAYED_MTU as u16, whole: mtu };
        let (networks, relayed, routes) = Default::default();
        Self { link, limits, networks, relayed, routes }
    }

    /// Whose networks are which from now on.
    pub(super) fn set_peers(&mut self, peers: &[PeerConfig]) {
        let nets = |peer: &PeerConfig| peer.allowed_ips.iter().map(IpNet::trunc).collect();
        self.networks = peers.iter().map(|peer| (peer.public_key, nets(peer))).collect();
        let is_changed = |key: &&WgPublicKey| self.networks.get(*key) != self.routes.get(*key);
        let changed: Vec<WgPublicKey> = self.relayed.iter().filter(is_changed).copied().collect();
        // All of the old first: a network may go from one peer to another.
        for key in &changed {
            self.widen(key);
        }
        for key in changed {
            if self.networks.contains_key(&key) {
                self.narrow(key);
            } else {
                self.relayed.remove(&key);
            }
        }
    }

    /// The path to a peer is another.
    pub(super) fn select(&mut self, peer: &WgPublicKey, path: Option<Path>) {
        let is_relayed = matches!(path, Some(Path::Relay { .. })) && self.limits.whole > self.limits.mtu;
        if is_relayed && self.relayed.insert(*peer) {
            self.narrow(*peer);
        } else if !is_relayed && self.relayed.remove(peer) {
            self.widen(peer);
        }
    }

    /// Whether the kernel cut a datagram for `peer` before it knew the path.
    pub(super) fn is_too_long(&self, peer: &WgPublicKey, datagram: &[u8]) -> bool {
        datagram.len() > lrp::FULL_SIZE && self.routes.get(peer).is_some_and(|routes| !routes.is_empty())
    }

    fn narrow(&mut self, peer: WgPublicKey) {
        let mut made = self.networks.get(&peer).cloned().unwrap_or_default();
        // What has a route already is somebody's who knows better.
        made.retain(|net| self.is_done(self.limits.add(&self.link.inside, *net)));
        self.routes.insert(peer, made);
    }

    fn widen(&mut self, peer: &WgPublicKey) {
        for net in self.routes.remove(peer).unwrap_or_default() {
            self.is_done(self.limits.delete(&self.link.inside, net));
        }
    }

    /// Without the route everything arrives all the same: by a relay's TCP.
    fn is_done(&self, done: Result<(), LinkError>) -> bool {
        done.inspect_err(
            |error| tracing::debug!(device = self.link.name, %error, "an MTU is not that of the path"),
        )
        .is_ok()
    }
}
