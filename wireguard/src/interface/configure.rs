//! Who the peers are.

use std::{collections::HashSet, net::SocketAddr, time::Instant};

use crate::{Interface, Output, Peer, PeerConfig, peer::Slot, routes::Routes};

impl Interface {
    /// Makes `wanted` the peers. Those that stay keep their sessions; new ones with keepalive connect at once.
    pub fn set_peers(&mut self, wanted: &[PeerConfig], now: Instant, out: &mut impl Output) {
        let keep: HashSet<_> = wanted.iter().map(|config| &config.public_key).collect();
        self.by_key.retain(|key, slot| {
            if !keep.contains(key)
                && let Some(mut peer) = self.slots[*slot].take()
            {
                peer.remove(&mut self.shared);
                self.deadlines.remove(&mut peer);
                self.free_slots.push(*slot);
            }
            keep.contains(key)
        });
        self.inner = inner(wanted);
        self.routes = Routes::default();
        for config in wanted {
            let Some(slot) = self.upsert(config, now, out) else {
                tracing::warn!(peer = %config.public_key, "a peer's key is unusable: the peer is left out");
                continue;
            };
            for net in &config.allowed_ips {
                self.routes.insert(*net, slot);
            }
        }
        self.routes.finish();
    }

    fn upsert(&mut self, config: &PeerConfig, now: Instant, out: &mut impl Output) -> Option<Slot> {
        let is_outer = |endpoint: &&SocketAddr| self.inner.lookup(endpoint.ip()).is_none();
        let candidates = config.endpoints.iter().filter(is_outer).copied();
        if let Some(&slot) = self.by_key.get(&config.public_key) {
            let peer = self.slots[slot].as_mut()?;
            peer.reconfigure(config, candidates, now, &mut self.shared, out);
            peer.handle_timeout(now, &mut self.shared, out);
            self.deadlines.schedule(peer);
            return Some(slot);
        }
        let slot = self.free_slots.last().copied().unwrap_or(self.slots.len());
        let mut peer = Peer::new(slot, config, candidates, now)?;
        // A first keepalive is due now.
        peer.handle_timeout(now, &mut self.shared, out);
        self.deadlines.schedule(&mut peer);
        match self.free_slots.pop() {
            Some(free) => self.slots[free] = Some(peer),
            None => self.slots.push(Some(peer)),
        }
        self.by_key.insert(config.public_key, slot);
        Some(slot)
    }
}

/// The allowed IPs of all peers, but not a default route: that says nothing about where the underlay is.
fn inner(peers: &[PeerConfig]) -> Routes<()> {
    let mut inner = Routes::default();
    let nets = peers.iter().flat_map(|peer| &peer.allowed_ips).filter(|net| net.prefix_len() > 0);
    nets.for_each(|net| inner.insert(*net, ()));
    inner.finish();
    inner
}
