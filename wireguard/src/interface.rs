//! The device's state: its peers, their allowed IPs and what is under way with them.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use lattice_wire::{WgPrivateKey, WgPublicKey};

use crate::{
    Drops, Output, Path, Peer, Sources, cookie::CookieSecret, deadlines::Deadlines, handshake::Identity,
    index::Indices, load::Load, peer::Slot, queue::Budget, routes::Routes, shared::Shared,
    unreachable::Unreachables,
};

mod configure;
mod incoming;
mod outgoing;

/// A WireGuard interface.
pub struct Interface {
    shared: Shared,
    slots: Vec<Option<Peer>>,
    free_slots: Vec<Slot>,
    by_key: HashMap<WgPublicKey, Slot>,
    deadlines: Deadlines,
    routes: Routes<Slot>,
    /// What the peers are reached at *through* the interface. Were one of these taken for a peer's endpoint, where the
    /// socket's namespace is the link's too, its datagrams would come back to be encrypted again, for ever.
    inner: Routes<()>,
    load: Load,
    cookie_secret: CookieSecret,
    unreachables: Unreachables,
}

impl Interface {
    /// An interface without peers, for inner packets of at most `mtu` bytes. Its randomness and its time of day are the
    /// kernel's.
    pub fn new(private_key: &WgPrivateKey, mtu: u16, now: Instant) -> Self {
        Self::with_sources(private_key, mtu, now, Sources::os())
    }

    /// As [`Interface::new`], with other sources of what it cannot make itself. With the same ones, and the same inputs at
    /// the same times, two interfaces do the same.
    pub fn with_sources(private_key: &WgPrivateKey, mtu: u16, now: Instant, sources: Sources) -> Self {
        Self {
            shared: Shared {
                identity: Identity::new(private_key),
                sources,
                indices: Indices::default(),
                budget: Budget::new(),
                mtu: mtu.into(),
                drops: Drops::default(),
            },
            slots: Vec::new(),
            free_slots: Vec::new(),
            by_key: HashMap::new(),
            deadlines: Deadlines::default(),
            routes: Routes::default(),
            inner: Routes::default(),
            load: Load::new(),
            cookie_secret: CookieSecret::new(),
            unreachables: Unreachables::new(now),
        }
    }

    /// Sends to a peer by exactly this path, data and handshakes; what is authentic is taken from wherever it comes, and
    /// does not move the peer. With `None` it is sent to where it was heard of last, and searched at its endpoints, as at
    /// the beginning. If a handshake is under way, or packets wait for one, one begins at once by the new path. A path to
    /// an address of the overlay itself is none; an unknown peer has none.
    pub fn set_path(&mut self, peer: &WgPublicKey, path: Option<Path>, now: Instant, out: &mut impl Output) {
        let path = path.filter(|path| !self.is_inner(path));
        self.with_peer(peer, |peer, shared| peer.set_path(path, now, shared, out));
    }

    /// Ends all sessions and handshakes, and begins anew with the peers that are to be kept connected or for which packets
    /// wait. To be called before anything else when the owner has been resumed from a copy of its memory: a restored
    /// snapshot, a cloned machine.
    ///
    /// What protects a copy. A session key must never meet a counter twice, and two copies of one process would use the
    /// same: whoever reads both datagrams gets the difference of both packets, and can forge others.
    ///
    /// - Nothing of a session can be cloned, serialized or read back, so no copy is ever made on purpose.
    /// - A copy made from outside, of the whole memory, is told so by this call. It draws all new keys from
    ///   [`Random`](crate::Random), which is the kernel's: that mixes in what is new in each copy of a machine.
    /// - A copy that nobody tells of ends its sessions by `now` all the same, 180 s after they were made (paper, section
    ///   6.1), if the owner's clock goes on while the machine stands: make `now` of `CLOCK_BOOTTIME`, which does so in
    ///   suspension, and treat a clock of the day that jumped as a resumption.
    ///
    /// The times of initiations taken so far are kept: what was recorded before the copy was made is a replay after it.
    pub fn forget_sessions(&mut self, now: Instant, out: &mut impl Output) {
        self.load = Load::new();
        self.cookie_secret = CookieSecret::new();
        for peer in self.slots.iter_mut().flatten() {
            peer.forget_sessions(now, &mut self.shared, out);
            self.deadlines.schedule(peer);
        }
    }

    /// When [`Self::handle_timeout`] is to be called next; `None` when nothing is to come. It may be too early.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first()
    }

    /// Does what time asks for. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl Output) {
        while let Some(peer) = self.deadlines.due(now).and_then(|slot| self.slots[slot].as_mut()) {
            self.deadlines.remove(peer);
            peer.handle_timeout(now, &mut self.shared, out);
            self.deadlines.schedule(peer);
        }
    }

    /// The peers.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().flatten()
    }

    /// The peer with this key.
    pub fn peer(&self, key: &WgPublicKey) -> Option<&Peer> {
        self.slots[*self.by_key.get(key)?].as_ref()
    }

    /// By which path a packet would go that begins with `head`, an IP header; `None` where it would go nowhere.
    pub fn path_of(&self, head: &[u8]) -> Option<Path> {
        let slot = self.routes.lookup(crate::ip::destination(head)?)?;
        self.slots[slot].as_ref()?.path()
    }

    /// Whom a packet is for that begins with `head`, an IP header, if there is no way to that peer yet.
    pub fn peer_without_path(&self, head: &[u8]) -> Option<WgPublicKey> {
        let slot = self.routes.lookup(crate::ip::destination(head)?)?;
        self.slots[slot].as_ref().filter(|peer| peer.path().is_none()).map(Peer::public_key)
    }

    /// Whether some peer has `address`: what is for another goes nowhere.
    pub fn leads_to(&self, address: IpAddr) -> bool {
        self.routes.lookup(address).is_some()
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        self.shared.drops
    }

    /// The indices of all sessions and handshakes, in order.
    pub(crate) fn indices(&self) -> Vec<u32> {
        self.shared.indices.all()
    }

    fn with_peer(&mut self, key: &WgPublicKey, work: impl FnOnce(&mut Peer, &mut Shared)) {
        if let Some(peer) = self.by_key.get(key).and_then(|slot| self.slots[*slot].as_mut()) {
            work(peer, &mut self.shared);
            self.deadlines.schedule(peer);
        }
    }

    fn is_inner(&self, path: &Path) -> bool {
        path.remote().is_some_and(|remote| self.inner.lookup(remote.ip()).is_some())
    }
}

#[cfg(test)]
mod tests;
