//! One peer: its tunnel, and where it is.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::{WgPublicKey, netmap::MAX_ENDPOINTS};

use super::noise::{Identity, Message, Opened, Sealed, Tunnel};
use crate::device::PeerConfig;

/// The least time between two initiations taken from a peer, so that one with a valid key cannot keep us busy with
/// handshakes either. The kernel's WireGuard allows as many.
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

/// A peer of the interface.
pub(crate) struct Peer {
    public_key: WgPublicKey,
    tunnel: Tunnel,
    /// Where the last authenticated packet came from. Nothing else moves a peer.
    endpoint: Option<SocketAddr>,
    /// Where it may be, best first.
    candidates: Vec<SocketAddr>,
    last_handshake: Option<Instant>,
    last_initiation: Option<Instant>,
    /// It began a handshake that we answered; its first packet will show that it has the answer.
    unconfirmed: bool,
    /// Initiations since it was last heard of.
    unanswered: u32,
    /// Packets wait for a session.
    queued: bool,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Peer {
    /// `None` when the peer's key is unusable.
    pub(super) fn new(identity: &Identity, config: &PeerConfig) -> Option<Self> {
        Some(Self {
            public_key: config.public_key,
            tunnel: Tunnel::new(identity, config.public_key, config.keepalive)?,
            endpoint: None,
            candidates: candidates(config),
            last_handshake: None,
            last_initiation: None,
            unconfirmed: false,
            unanswered: 0,
            queued: false,
            rx_bytes: 0,
            tx_bytes: 0,
        })
    }

    /// Takes over what may change. A peer that is said to be elsewhere, or is being looked for, is looked for anew at
    /// once; its session lives on.
    pub(super) fn reconfigure(&mut self, config: &PeerConfig) -> Option<Sealed> {
        self.tunnel.set_keepalive(config.keepalive);
        let candidates = candidates(config);
        if candidates == self.candidates {
            return None;
        }
        let moved = self.endpoint.is_some_and(|endpoint| !candidates.contains(&endpoint));
        self.candidates = candidates;
        if moved || self.unanswered > 0 {
            self.unanswered = self.unanswered.max(1);
            return self.tunnel.initiate();
        }
        None
    }

    /// Whether there is anywhere to send to.
    pub(super) fn is_reachable(&self) -> bool {
        self.endpoint.is_some() || !self.candidates.is_empty()
    }

    pub(super) fn seal(&mut self, packet: &[u8], mtu: u16) -> Option<Sealed> {
        let sealed = self.tunnel.seal(packet, mtu);
        self.queued |= sealed.as_ref().is_none_or(Sealed::is_initiation);
        sealed
    }

    /// Opens a message that came from `from`; if it is authentic, that is where the peer is now.
    pub(super) fn open(&mut self, message: Message, from: SocketAddr, now: Instant) -> Opened {
        let (is_initiation, is_response) = (message.is_initiation(), message.is_response());
        let len = message.len();
        let too_soon = |last: Instant| now.saturating_duration_since(last) < INITIATION_INTERVAL;
        if is_initiation && self.last_initiation.is_some_and(too_soon) {
            return Opened::Refused;
        }
        let opened = self.tunnel.open(message);
        if matches!(opened, Opened::Answer(_) | Opened::Packet(_)) {
            self.endpoint = Some(from);
            self.rx_bytes += len;
            let confirms = matches!(opened, Opened::Packet(_)) && std::mem::take(&mut self.unconfirmed);
            if is_response || confirms {
                self.last_handshake = Some(now);
            }
            if is_initiation {
                self.last_initiation = Some(now);
            }
            self.unconfirmed = is_initiation || self.unconfirmed && !is_response;
            self.unanswered = 0;
        }
        opened
    }

    pub(super) fn next_queued(&mut self, mtu: u16) -> Option<Sealed> {
        if !self.queued || self.unconfirmed || !self.tunnel.has_session() {
            return None;
        }
        let next = self.tunnel.next_queued(mtu);
        self.queued = next.is_some();
        next
    }

    pub(super) fn tick(&mut self) -> Option<Sealed> {
        let due = self.tunnel.tick();
        self.queued |= due.as_ref().is_some_and(Sealed::is_initiation);
        due
    }

    /// Every place `message` goes to: where the peer is, or, to find that out, everywhere it may be.
    pub(super) fn destinations(&mut self, message: &Sealed, mut send: impl FnMut(SocketAddr)) {
        let mut sent = 0;
        let mut send = |to| {
            sent += message.as_bytes().len() as u64;
            send(to);
        };
        let mut search = self.endpoint.is_none();
        if message.is_initiation() {
            search |= self.unanswered > 0 || !self.tunnel.has_session();
            self.unanswered = self.unanswered.saturating_add(1);
        }
        if let Some(endpoint) = self.endpoint {
            send(endpoint);
        }
        if search {
            let others = self.candidates.iter().filter(|candidate| Some(**candidate) != self.endpoint);
            others.for_each(|to| send(*to));
        }
        self.tx_bytes += sent;
    }

    pub(crate) fn public_key(&self) -> WgPublicKey {
        self.public_key
    }

    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint.or_else(|| self.candidates.first().copied())
    }

    pub(crate) fn last_handshake(&self) -> Option<Instant> {
        self.last_handshake
    }

    pub(crate) fn rx_bytes(&self) -> u64 {
        self.rx_bytes
    }

    pub(crate) fn tx_bytes(&self) -> u64 {
        self.tx_bytes
    }
}

/// A port of zero is no endpoint.
fn candidates(config: &PeerConfig) -> Vec<SocketAddr> {
    config.endpoints.iter().copied().filter(|endpoint| endpoint.port() != 0).take(MAX_ENDPOINTS).collect()
}
