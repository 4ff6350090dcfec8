//! One peer: its handshakes, its sessions, and where it is.

use std::{net::SocketAddr, time::Instant};

use lattice_wire::WgPublicKey;

use crate::{
    Output, Path, PeerConfig, cookie::Macs, handshake::Remote, paths::Paths, pending::Pending, queue::Queue,
    retransmit::Retransmit, session::Sessions, shared::Shared, timers::Timers, timestamp::Timestamp,
};

mod data;
mod handshake;
mod timeout;

/// A peer's place in the interface.
pub(crate) type Slot = usize;

/// A peer of the interface.
pub struct Peer {
    pub(crate) slot: Slot,
    remote: Remote,
    macs: Macs,
    /// The handshakes that we began, until they are answered.
    pending: Pending,
    /// The initiation of a quick search.
    retransmit: Option<Box<Retransmit>>,
    /// When the last initiation that we took was made, as the peer says: none that is not newer is taken.
    newest_taken: Option<Timestamp>,
    last_taken: Option<Instant>,
    /// When our last initiation was made, as we say.
    newest_sent: Option<Timestamp>,
    sessions: Sessions,
    queue: Queue,
    paths: Paths,
    timers: Timers,
    /// When the interface will look at the timers.
    pub(crate) scheduled: Option<Instant>,
    /// Initiations since the peer was last heard of.
    unanswered: u32,
    /// The next search is to be quick: nothing was heard since the peer became known, moved, or was last there. Later ones
    /// keep WireGuard's own pace, so that peers that are away cost little.
    eager: bool,
    last_handshake: Option<Instant>,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Peer {
    /// `None` when the peer's key is unusable.
    pub(crate) fn new(
        slot: Slot,
        config: &PeerConfig,
        candidates: impl Iterator<Item = SocketAddr>,
        now: Instant,
    ) -> Option<Self> {
        let mut timers = Timers::default();
        timers.set_interval(config.keepalive, now);
        Some(Self {
            slot,
            remote: Remote::new(config.public_key)?,
            macs: Macs::default(),
            pending: Pending::default(),
            retransmit: None,
            newest_taken: None,
            last_taken: None,
            newest_sent: None,
            sessions: Sessions::default(),
            queue: Queue::default(),
            paths: Paths::new(candidates),
            timers,
            scheduled: None,
            unanswered: 0,
            eager: true,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        })
    }

    /// Takes over what may change. A peer that is said to be elsewhere, or is being looked for, is looked for anew at
    /// once; its session lives on.
    pub(crate) fn reconfigure(
        &mut self,
        config: &PeerConfig,
        candidates: impl Iterator<Item = SocketAddr> + Clone,
        now: Instant,
        shared: &mut Shared,
        out: &mut impl Output,
    ) {
        self.timers.set_interval(config.keepalive, now);
        if !self.paths.set_candidates(candidates) {
            return;
        }
        let is_missed =
            self.unanswered > 0 || self.timers.is_persistent() && !self.sessions.is_connected(now);
        if self.paths.has_moved() || is_missed {
            self.pending.by_another_path();
            self.unanswered = self.unanswered.max(1);
            self.eager = true;
            self.initiate(now, shared, out);
        }
    }

    /// Sends by `path` from now on, or by wherever the peer is heard of.
    pub(crate) fn set_path(
        &mut self,
        path: Option<Path>,
        now: Instant,
        shared: &mut Shared,
        out: &mut impl Output,
    ) {
        if !self.paths.force(path) {
            return;
        }
        self.pending.by_another_path();
        if self.pending.is_some() || !self.queue.is_empty() {
            self.eager = true;
            self.initiate(now, shared, out);
        }
    }

    /// Forgets whatever was agreed upon with the peer. Packets that wait, and a peer to be kept connected, begin anew.
    pub(crate) fn forget_sessions(&mut self, now: Instant, shared: &mut Shared, out: &mut impl Output) {
        self.wipe(shared);
        self.timers.reset();
        self.unanswered = self.unanswered.max(1);
        self.eager = true;
        if self.timers.is_persistent() || !self.queue.is_empty() {
            self.initiate(now, shared, out);
        }
    }

    /// Gives back what is the interface's. The peer is not used any more.
    pub(crate) fn remove(&mut self, shared: &mut Shared) {
        self.wipe(shared);
        shared.drops.queue += self.queue.clear(&mut shared.budget);
    }

    fn wipe(&mut self, shared: &mut Shared) {
        shared.indices.release(self.sessions.clear());
        shared.indices.release(self.pending.clear());
        self.retransmit = None;
        self.macs.clear();
    }

    /// Whether there is anywhere to send to.
    pub(crate) fn is_reachable(&self) -> bool {
        self.paths.best().is_some()
    }

    /// Its key.
    pub fn public_key(&self) -> WgPublicKey {
        WgPublicKey(self.remote.public_key)
    }

    /// What it is sent to by: the path set by the interface's owner, else where its last authentic message came from, else
    /// what will be tried first.
    pub fn path(&self) -> Option<Path> {
        self.paths.best()
    }

    /// When the last handshake was completed.
    pub fn last_handshake(&self) -> Option<Instant> {
        self.last_handshake
    }

    /// When its last authentic message came, of whatever type.
    pub fn last_received(&self) -> Option<Instant> {
        self.paths.last_heard()
    }

    /// By which path its last authentic message came, whichever path it is sent to by.
    pub fn last_received_by(&self) -> Option<Path> {
        self.paths.heard()
    }

    /// Bytes received from it.
    pub fn rx_bytes(&self) -> u64 {
        self.rx_bytes
    }

    /// Bytes sent to it.
    pub fn tx_bytes(&self) -> u64 {
        self.tx_bytes
    }
}
