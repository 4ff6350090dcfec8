//! One peer: its tunnel, and where it is.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::{WgPublicKey, netmap::MAX_ENDPOINTS};

use crate::{
    Output, Path, PeerConfig,
    noise::{Identity, Message, Opened, Sealed, Tunnel},
    retransmit::Retransmit,
};

/// The least time between two initiations taken from a peer, so that one with a valid key cannot keep us busy with
/// handshakes either. The kernel's WireGuard allows as many.
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

/// A peer of the interface.
pub struct Peer {
    public_key: WgPublicKey,
    tunnel: Tunnel,
    /// Where the last authenticated packet came from. Nothing else moves a peer.
    endpoint: Option<Path>,
    /// Where it may be, best first.
    candidates: Vec<SocketAddr>,
    last_handshake: Option<Instant>,
    last_initiation: Option<Instant>,
    /// It began a handshake that we answered; its first packet will show that it has the answer.
    unconfirmed: bool,
    /// Initiations since it was last heard of.
    unanswered: u32,
    /// The next search is to be quick: nothing was heard since it became known, moved, or was last there. Later ones keep
    /// WireGuard's own pace, so that peers that are away cost little.
    eager: bool,
    /// The initiation of a quick search.
    retransmit: Option<Retransmit>,
    /// Packets wait for a session.
    queued: bool,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Peer {
    /// `None` when the peer's key is unusable.
    pub(crate) fn new(
        identity: &Identity,
        config: &PeerConfig,
        candidates: impl Iterator<Item = SocketAddr>,
    ) -> Option<Self> {
        Some(Self {
            public_key: config.public_key,
            tunnel: Tunnel::new(identity, config.public_key, config.keepalive)?,
            endpoint: None,
            candidates: usable(candidates),
            last_handshake: None,
            last_initiation: None,
            unconfirmed: false,
            unanswered: 0,
            eager: true,
            retransmit: None,
            queued: false,
            rx_bytes: 0,
            tx_bytes: 0,
        })
    }

    /// Takes over what may change. A peer that is said to be elsewhere, or is being looked for, is looked for anew at
    /// once; its session lives on.
    pub(crate) fn reconfigure(
        &mut self,
        config: &PeerConfig,
        candidates: impl Iterator<Item = SocketAddr>,
    ) -> Option<Sealed> {
        self.tunnel.set_keepalive(config.keepalive);
        let candidates = usable(candidates);
        if candidates == self.candidates {
            return None;
        }
        let remote = self.endpoint.and_then(|endpoint| endpoint.remote());
        let moved = remote.is_some_and(|remote| !candidates.contains(&remote));
        self.candidates = candidates;
        if moved || self.unanswered > 0 {
            self.unanswered = self.unanswered.max(1);
            self.eager = true;
            return self.tunnel.initiate();
        }
        None
    }

    /// Whether there is anywhere to send to.
    pub(crate) fn is_reachable(&self) -> bool {
        self.endpoint.is_some() || !self.candidates.is_empty()
    }

    pub(crate) fn seal(&mut self, packet: &[u8], mtu: u16) -> Option<Sealed> {
        let sealed = self.tunnel.seal(packet, mtu);
        self.queued |= sealed.as_ref().is_none_or(Sealed::is_initiation);
        sealed
    }

    /// Opens a message that came from `from`; if it is authentic, that is where the peer is now.
    pub(crate) fn open(&mut self, message: Message, from: Path, now: Instant) -> Opened {
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
            self.eager = true;
            // Ours goes on while the peer has yet to show that it got our answer to its own.
            if !is_initiation {
                self.retransmit = None;
            }
        }
        opened
    }

    pub(crate) fn next_queued(&mut self, mtu: u16) -> Option<Sealed> {
        if !self.queued || self.unconfirmed || !self.tunnel.has_session() {
            return None;
        }
        let next = self.tunnel.next_queued(mtu);
        self.queued = next.is_some();
        next
    }

    pub(crate) fn tick(&mut self) -> Option<Sealed> {
        let due = self.tunnel.tick();
        self.queued |= due.as_ref().is_some_and(Sealed::is_initiation);
        due
    }

    /// Sends `message` to where the peer is, or, to find that out, everywhere it may be. Returns when it is due again.
    pub(crate) fn transmit(
        &mut self,
        message: &Sealed,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Instant> {
        let mut search = self.endpoint.is_none();
        if message.is_initiation() {
            search |= self.unanswered > 0 || !self.tunnel.has_session();
            self.unanswered = self.unanswered.saturating_add(1);
            let quick = search && std::mem::take(&mut self.eager);
            self.retransmit = quick.then(|| Retransmit::new(message.as_bytes(), now));
        }
        self.tx_bytes +=
            send(message.as_bytes(), self.endpoint, if search { &self.candidates } else { &[] }, out);
        self.retransmit.as_ref()?.due_at()
    }

    /// Sends an unanswered initiation again if that is due. Returns when it is due next.
    pub(crate) fn retransmit(&mut self, now: Instant, out: &mut impl Output) -> Option<Instant> {
        let retransmit = self.retransmit.as_mut()?;
        if let Some(initiation) = retransmit.take_due(now) {
            self.tx_bytes += send(initiation, self.endpoint, &self.candidates, out);
        }
        retransmit.due_at()
    }

    /// Its key.
    pub fn public_key(&self) -> WgPublicKey {
        self.public_key
    }

    /// Where its last authenticated packet came from; where to try first before that.
    pub fn path(&self) -> Option<Path> {
        self.endpoint.or_else(|| self.candidates.first().copied().map(Path::to))
    }

    /// When the last handshake was completed.
    pub fn last_handshake(&self) -> Option<Instant> {
        self.last_handshake
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

/// Sends to `endpoint` and to all others of `candidates`. Returns how many bytes that was.
fn send(datagram: &[u8], endpoint: Option<Path>, candidates: &[SocketAddr], out: &mut impl Output) -> u64 {
    let known = endpoint.and_then(|endpoint| endpoint.remote());
    let others = candidates.iter().filter(|candidate| Some(**candidate) != known);
    let others = others.map(|candidate| Path::to(*candidate));
    let mut sent = 0;
    for to in endpoint.into_iter().chain(others) {
        out.transmit(to, datagram.len(), |room| room.copy_from_slice(datagram));
        sent += datagram.len() as u64;
    }
    sent
}

/// A port of zero is no endpoint.
fn usable(candidates: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    candidates.filter(|candidate| candidate.port() != 0).take(MAX_ENDPOINTS).collect()
}

#[cfg(test)]
mod tests {
    use lattice_wire::WgPrivateKey;

    use super::*;

    struct Nowhere;

    impl Output for Nowhere {
        fn transmit(&mut self, _: Path, _: usize, _: impl FnOnce(&mut [u8])) {}
        fn deliver(&mut self, _: &[u8]) {}
    }

    #[test]
    fn a_peer_that_is_away_is_searched_for_quickly_once() {
        let identity = Identity::new(&WgPrivateKey::from_random([1; 32]));
        let config = PeerConfig {
            public_key: WgPrivateKey::from_random([2; 32]).public(),
            allowed_ips: vec![],
            endpoints: vec![],
            keepalive: None,
        };
        let at = |port| std::iter::once(SocketAddr::from(([192, 0, 2, 2], port)));
        let (mut peer, now) = (Peer::new(&identity, &config, at(1)).unwrap(), Instant::now());
        let initiate = |peer: &mut Peer| {
            let initiation = peer.tunnel.initiate().unwrap();
            peer.transmit(&initiation, now, &mut Nowhere).is_some()
        };
        assert!(initiate(&mut peer));
        assert!(!initiate(&mut peer));
        assert!(peer.retransmit(now + Duration::from_secs(1), &mut Nowhere).is_none());
        let anew = peer.reconfigure(&config, at(2)).unwrap();
        assert!(peer.transmit(&anew, now, &mut Nowhere).is_some());
    }
}
