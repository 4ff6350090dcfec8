//! Routes with a smaller MTU to peers that are reached by a relay, so that their packets fit what every relay carries by QUIC.
//!
//! Unlike an ICMP "too big", of which the kernel thinks for ten minutes, a route takes effect at once, on connections that stand too, and ends
//! with the path. It goes with the link, whatever becomes of us. What the kernel cut before it knew is dropped, and cut anew by TCP: the relay's
//! client would go by TCP for it, and not come back from that for ten minutes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use lattice_wire::{WgPublicKey, lrp};
use lattice_wireguard::Path;

use super::link::WgLink;
use crate::{
    device::{PeerConfig, core::RELAYED_MTU},
    link::{LimitedRoutes, LinkError},
};

/// So long after its routes were added, what the kernel cut before may still come.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The peers that are reached by a relay, and the routes to them.
#[derive(Debug)]
pub(super) struct Narrow {
    link: Arc<WgLink>,
    limits: LimitedRoutes,
    networks: HashMap<WgPublicKey, Vec<IpNet>>,
    relayed: HashSet<WgPublicKey>,
    routes: HashMap<WgPublicKey, Vec<IpNet>>,
    /// When routes to a peer were last added.
    narrowed: HashMap<WgPublicKey, Instant>,
}

impl Narrow {
    /// For a link of that MTU in bytes.
    pub(super) fn new(link: Arc<WgLink>, mtu: u16) -> Self {
        let limits = LimitedRoutes { link: link.name.clone(), mtu: RELAYED_MTU as u16, whole: mtu };
        let (networks, relayed, routes, narrowed) = Default::default();
        Self { link, limits, networks, relayed, routes, narrowed }
    }

    /// Whose networks are which from now on. A route that is wanted still is left alone, and one that could not be made is tried again.
    pub(super) fn set_peers(&mut self, peers: &[PeerConfig], now: Instant) {
        let nets = |peer: &PeerConfig| peer.allowed_ips.iter().map(IpNet::trunc).collect();
        self.networks = peers.iter().map(|peer| (peer.public_key, nets(peer))).collect();
        let relayed: Vec<WgPublicKey> = self.relayed.iter().copied().collect();
        // All of the old first: a network may go from one peer to another.
        for key in &relayed {
            self.widen(key);
        }
        for key in relayed {
            if self.networks.contains_key(&key) {
                self.narrow(key, now);
            } else {
                self.relayed.remove(&key);
            }
        }
    }

    /// The path to a peer is another.
    pub(super) fn select(&mut self, peer: &WgPublicKey, path: Option<Path>, now: Instant) {
        let is_relayed = matches!(path, Some(Path::Relay { .. })) && self.limits.whole > self.limits.mtu;
        if is_relayed && self.relayed.insert(*peer) {
            self.narrow(*peer, now);
        } else if !is_relayed && self.relayed.remove(peer) {
            self.widen(peer);
        }
    }

    /// Whether the kernel may have cut a datagram for `peer` before it knew the path. What is too long later goes by a route that is not ours.
    pub(super) fn is_too_long(&self, peer: &WgPublicKey, datagram: &[u8], now: Instant) -> bool {
        let is_new = |at: &Instant| now.saturating_duration_since(*at) < UNKNOWN;
        datagram.len() > lrp::FULL_SIZE && self.narrowed.get(peer).is_some_and(is_new)
    }

    /// Adds the routes to a relayed peer that are not there.
    fn narrow(&mut self, peer: WgPublicKey, now: Instant) {
        let made = self.routes.get(&peer).map_or(&[][..], Vec::as_slice);
        let mut new = self.networks.get(&peer).cloned().unwrap_or_default();
        // What has a route already is somebody's who knows better.
        new.retain(|net| !made.contains(net) && self.is_done(self.limits.add(&self.link.inside, *net)));
        if !new.is_empty() {
            self.narrowed.insert(peer, now);
            self.routes.entry(peer).or_default().extend(new);
        }
    }

    /// Deletes the routes to a peer but those to what is its own and reached by a relay.
    fn widen(&mut self, peer: &WgPublicKey) {
        let wanted = self.networks.get(peer).filter(|_| self.relayed.contains(peer));
        let is_wanted = |net: &IpNet| wanted.is_some_and(|wanted| wanted.contains(net));
        let made = self.routes.remove(peer).unwrap_or_default();
        let (kept, old): (Vec<IpNet>, Vec<IpNet>) = made.into_iter().partition(is_wanted);
        for net in old {
            self.is_done(self.limits.delete(&self.link.inside, net));
        }
        if kept.is_empty() {
            self.narrowed.remove(peer);
        } else {
            self.routes.insert(*peer, kept);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Netns,
        link::{add_veth, set_up},
    };

    const KEY: WgPublicKey = WgPublicKey([1; 32]);

    #[test]
    fn a_route_that_cannot_be_made_costs_neither_the_others_nor_what_is_too_long() {
        let (inside, other) = (Arc::new(Netns::create().unwrap()), Netns::create().unwrap());
        add_veth(&inside, "wg0", &other, "eth0").unwrap();
        set_up(&inside, "wg0").unwrap();
        let link = WgLink {
            name: "wg0".into(),
            interface: "wg0".parse().unwrap(),
            inside: Arc::clone(&inside),
            underlay: Arc::clone(&inside),
        };
        let routes = LimitedRoutes { link: "wg0".into(), mtu: 1280, whole: 1420 };
        let [ours, theirs, next]: [IpNet; 3] =
            ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"].map(|net| net.parse().unwrap());
        let peer =
            |allowed_ips| [PeerConfig { public_key: KEY, allowed_ips, endpoints: vec![], keepalive: None }];
        routes.add(&inside, theirs).unwrap();

        let mut narrow = Narrow::new(Arc::new(link), 1420);
        let start = Instant::now();
        narrow.set_peers(&peer(vec![ours, theirs]), start);
        narrow.select(&KEY, Some(Path::Relay { relay: 0, peer: KEY }), start);
        let long = [0; lrp::FULL_SIZE + 1];
        assert!(narrow.is_too_long(&KEY, &long, start));
        assert!(!narrow.is_too_long(&KEY, &long[1..], start));
        assert!(!narrow.is_too_long(&KEY, &long, start + UNKNOWN), "it goes by a route that is not ours");

        // What is gone behind its back would be there again if it were made anew.
        routes.delete(&inside, ours).unwrap();
        narrow.set_peers(&peer(vec![ours, theirs]), start);
        routes.add(&inside, ours).expect("a route that is wanted still is left alone");

        // What is wanted no more goes, what could not be made is tried again.
        routes.delete(&inside, theirs).unwrap();
        narrow.set_peers(&peer(vec![theirs, next]), start);
        routes.add(&inside, ours).expect("it was deleted");
        for net in [theirs, next] {
            assert_eq!(routes.add(&inside, net).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        }
        narrow.select(&KEY, None, start);
        for net in [theirs, next] {
            routes.add(&inside, net).expect("it was deleted with the path");
        }
    }
}
