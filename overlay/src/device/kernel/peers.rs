//! Where the kernel is to send what is for each peer, and what becomes of what it sends to a peer's home. Pure.
//!
//! ```text
//!   path known to be direct   endpoint: the peer's address      kernel ──► peer
//!   path by a relay           endpoint: the peer's home         kernel ──► home ──► relay ──► peer
//!   no path, or no traffic    endpoint: the peer's home         kernel ──► home: the first packet is noticed here, and its
//!                                                               handshake sent to wherever the peer may be
//! ```
//!
//! The kernel itself follows a peer to wherever an authentic packet of it comes from. That is as it should be from one address to
//! another; but a packet that was late by a relay brings it home, and one that was late on a direct path that died, away from there.
//! What then comes home is sent on from here, so nothing is lost, and the endpoint is set right.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use lattice_wire::{WgPublicKey, netmap::MAX_ENDPOINTS};
use lattice_wireguard::{Path, RelayNumber};
use wireguard_control as wg;

use super::{
    handshake::{Initiation, Message},
    loopback::{Homes, Slot},
};
use crate::device::PeerConfig;

/// A session older than this is dead (`REJECT_AFTER_TIME`, WireGuard white paper section 6.1).
const SESSION_LIFE: Duration = Duration::from_secs(180);
/// The kernel is told not more often where a peer is that it was just told of: packets that are late may come for a while.
const SETTLING: Duration = Duration::from_millis(100);

/// The peers of a device.
#[derive(Debug)]
pub(super) struct Peers {
    homes: Homes,
    slots: HashMap<WgPublicKey, Slot>,
    peers: HashMap<Slot, Peer>,
    /// What the kernel began at homes, and nobody answered yet.
    initiations: HashMap<Slot, Initiation>,
    next: Slot,
}

#[derive(Debug)]
struct Peer {
    key: WgPublicKey,
    /// Where the map says that it may be.
    candidates: Vec<SocketAddr>,
    /// What the path finder says; holds while there is traffic.
    selected: Option<Path>,
    /// The path finder looks after it.
    is_active: bool,
    /// Where it was heard of last, but for relays.
    heard: Option<SocketAddr>,
    /// By which relay something came, if nothing came by another way since.
    relay: Option<RelayNumber>,
    /// When the kernel was last told where it is.
    told: Option<Instant>,
    rx_bytes: u64,
    tx_bytes: u64,
    handshake: Option<SystemTime>,
}

/// Where a datagram of the kernel's goes: by the relay, and to all of the addresses. With neither it is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct To {
    pub(super) relay: Option<RelayNumber>,
    pub(super) direct: Vec<SocketAddr>,
}

/// What is to be done about a datagram that the kernel sent home.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) peer: WgPublicKey,
    pub(super) to: To,
    /// Somebody has something to say to the peer.
    pub(super) is_wanted: bool,
    /// Where the kernel is to send from now on.
    pub(super) endpoint: Option<SocketAddr>,
}

/// What the kernel's counters say about a peer since they were last read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Something authentic came, by that path.
    pub(super) came_by: Option<Path>,
    /// There were packets for it.
    pub(super) is_wanted: bool,
    /// Where the kernel is to send from now on.
    pub(super) endpoint: Option<SocketAddr>,
}

impl Peers {
    pub(super) fn new(homes: Homes) -> Self {
        let (slots, peers, initiations) = Default::default();
        Self { homes, slots, peers, initiations, next: 0 }
    }

    /// Makes `wanted` the peers; those that stay keep their homes, and what is known of them.
    pub(super) fn follow(&mut self, wanted: &[PeerConfig]) {
        let mut before = std::mem::take(&mut self.slots);
        for config in wanted {
            let candidates = config.endpoints.iter().filter(|at| at.port() != 0).take(MAX_ENDPOINTS);
            let candidates: Vec<SocketAddr> = candidates.copied().collect();
            let key = config.public_key;
            let slot = before.remove(&key).or_else(|| self.slots.get(&key).copied());
            let slot = slot.unwrap_or_else(|| self.free());
            self.slots.insert(key, slot);
            match self.peers.get_mut(&slot) {
                Some(peer) => peer.candidates = candidates,
                None => drop(self.peers.insert(slot, Peer::new(key, candidates))),
            }
        }
        for slot in before.into_values() {
            self.peers.remove(&slot);
            self.initiations.remove(&slot);
        }
    }

    /// A home that nobody has, nor had lately: what is on its way to a peer that is gone must not come to another.
    fn free(&mut self) -> Slot {
        while self.peers.contains_key(&self.next) {
            self.next = Homes::after(self.next);
        }
        let free = self.next;
        self.next = Homes::after(free);
        free
    }

    /// The home of a peer, which must be one of them.
    pub(super) fn home(&self, key: &WgPublicKey) -> Option<SocketAddr> {
        self.slots.get(key).map(|slot| self.homes.at(*slot))
    }

    /// Whether an endpoint is no address of a peer's, but its home.
    pub(super) fn is_home(&self, endpoint: SocketAddr) -> bool {
        self.homes.has(endpoint)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The kernel sent `datagram` to a home.
    pub(super) fn sent_home(&mut self, slot: Slot, datagram: &[u8], now: Instant) -> Option<Outgoing> {
        let peer = self.peers.get_mut(&slot)?;
        let message = Message::of(datagram)?;
        if let Message::Initiation(bytes) = message {
            self.initiations.insert(slot, Initiation::new(*bytes, now));
        }
        let mut endpoint = None;
        if let Some(Path::Direct { remote, .. }) = peer.chosen()
            && peer.told.is_none_or(|told| now.saturating_duration_since(told) >= SETTLING)
        {
            (peer.told, endpoint) = (Some(now), Some(remote));
        }
        let is_wanted = message.is_wish();
        Some(Outgoing { peer: peer.key, to: peer.to(message), is_wanted, endpoint })
    }

    /// Where what came by `relay` for a peer seems to the kernel to come from; `None` when there is no such peer.
    pub(super) fn came(&mut self, key: &WgPublicKey, relay: RelayNumber) -> Option<Slot> {
        let slot = *self.slots.get(key)?;
        self.peers.get_mut(&slot)?.relay = Some(relay);
        Some(slot)
    }

    /// The path finder looks after a peer from now on.
    pub(super) fn is_wanted(&mut self, key: &WgPublicKey) {
        if let Some(peer) = self.peer(key) {
            peer.is_active = true;
        }
    }

    /// The path finder chose a path. Returns where the kernel is to send from now on. An initiation that waits is due at once.
    pub(super) fn select(
        &mut self,
        key: &WgPublicKey,
        path: Option<Path>,
        now: Instant,
    ) -> Option<SocketAddr> {
        let home = self.home(key)?;
        let peer = self.peer(key)?;
        (peer.selected, peer.is_active, peer.told) = (path, true, Some(now));
        let slot = self.slots.get(key)?;
        self.initiations.get_mut(slot).into_iter().for_each(|initiation| initiation.again(now));
        Some(path.and_then(|path| path.remote()).unwrap_or(home))
    }

    /// The path finder looks after a peer no more: its next packet has to be noticed. Returns its home.
    pub(super) fn end(&mut self, key: &WgPublicKey) -> Option<SocketAddr> {
        let home = self.home(key)?;
        self.peer(key)?.is_active = false;
        Some(home)
    }

    /// Compares what the kernel says of a peer with what it said before.
    pub(super) fn read(&mut self, info: &wg::PeerInfo, now: Instant) -> News {
        let key = WgPublicKey(info.config.public_key.0);
        let Self { homes, slots, peers, initiations, .. } = self;
        let Some((slot, peer)) = slots.get(&key).and_then(|slot| Some((*slot, peers.get_mut(slot)?))) else {
            return News::default();
        };
        let home = homes.at(slot);
        let endpoint = info.config.endpoint;
        let away = endpoint.filter(|at| !homes.has(*at));
        peer.heard = away.or(peer.heard);
        let (was_heard, sent) =
            (info.stats.rx_bytes > peer.rx_bytes, info.stats.tx_bytes.saturating_sub(peer.tx_bytes));
        (peer.rx_bytes, peer.tx_bytes) = (info.stats.rx_bytes, info.stats.tx_bytes);
        if peer.handshake != info.stats.last_handshake_time {
            peer.handshake = info.stats.last_handshake_time;
            initiations.remove(&slot);
        }
        if was_heard && away.is_some() {
            peer.relay = None;
        }
        let by_relay = peer.relay.map(|relay| Path::Relay { relay, peer: key });
        let came_by = away.map(Path::to).or(by_relay).filter(|_| was_heard);
        // Told just now: what was read may be older.
        let is_settled = peer.told.is_none_or(|told| now.saturating_duration_since(told) >= SETTLING);
        let endpoint = peer.endpoint(away, home, was_heard).filter(|at| is_settled && Some(*at) != endpoint);
        if endpoint.is_some() {
            peer.told = Some(now);
        }
        News { came_by, is_wanted: is_talk(sent), endpoint }
    }

    /// When the next initiation is to be sent again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.initiations.values().filter_map(Initiation::due).min()
    }

    /// The initiations to be sent again now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(WgPublicKey, To, [u8; Message::INITIATION])> {
        let mut due = Vec::new();
        let Self { peers, initiations, .. } = self;
        initiations.retain(|slot, initiation| {
            if let (Some(bytes), Some(peer)) = (initiation.take_due(now), peers.get(slot)) {
                due.push((peer.key, peer.to(Message::Initiation(&bytes)), bytes));
            }
            initiation.due().is_some()
        });
        due
    }

    /// Whether a handshake is under way that was begun at somebody's home.
    pub(super) fn is_searching(&self) -> bool {
        !self.initiations.is_empty()
    }

    fn peer(&mut self, key: &WgPublicKey) -> Option<&mut Peer> {
        self.peers.get_mut(self.slots.get(key)?)
    }
}

impl Peer {
    fn new(key: WgPublicKey, candidates: Vec<SocketAddr>) -> Self {
        Self {
            key,
            candidates,
            selected: None,
            is_active: false,
            heard: None,
            relay: None,
            told: None,
            rx_bytes: 0,
            tx_bytes: 0,
            handshake: None,
        }
    }

    /// The path that the path finder chose, while it looks after the peer.
    fn chosen(&self) -> Option<Path> {
        self.selected.filter(|_| self.is_active)
    }

    /// Where a message goes that came home: by the path that was chosen, else an initiation to wherever the peer may be, and the rest
    /// to the likeliest place. That is the relay by which something came last: an initiation may come by it before any path is chosen
    /// here, and who sent it waits there for the answer.
    fn to(&self, message: Message<'_>) -> To {
        match self.chosen() {
            Some(Path::Relay { relay, .. }) => To { relay: Some(relay), ..To::default() },
            Some(Path::Direct { remote, .. }) => To { direct: vec![remote], ..To::default() },
            None => {
                let others = self.candidates.iter().copied().filter(|at| Some(*at) != self.heard);
                let all = self.heard.into_iter().chain(others);
                let most = match message {
                    Message::Initiation(_) => usize::MAX,
                    _ => usize::from(self.relay.is_none()),
                };
                To { relay: self.relay, direct: all.take(most).collect() }
            }
        }
    }

    /// Where the kernel ought to send, which thinks that the peer is `away` from home, or at home.
    fn endpoint(&self, away: Option<SocketAddr>, home: SocketAddr, was_heard: bool) -> Option<SocketAddr> {
        let young = |at: SystemTime| at.elapsed().is_ok_and(|age| age < SESSION_LIFE);
        match self.chosen() {
            Some(Path::Relay { .. }) => Some(home),
            // It moved, and says so itself: the path finder will follow.
            Some(Path::Direct { remote, .. }) => (away.is_none() || !was_heard).then_some(remote),
            None if self.handshake.is_some_and(young) => None,
            None => Some(home),
        }
    }
}

/// Whether so many bytes are more than what the kernel says by itself in a while: keepalives of 32 bytes, an answer of 92 to a
/// handshake.
fn is_talk(sent: u64) -> bool {
    !matches!(sent, 0 | 32 | 64 | 92 | 124)
}

#[cfg(test)]
mod tests;
