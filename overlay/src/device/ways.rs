//! Path finding in the device's thread.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use lattice_paths::{Config, Event, PathPeer, PathStatus, Paths};
use lattice_wire::{Signal, WgPublicKey};
use lattice_wireguard::{OsRandom, Path, PeerConfig, Random as _};
use tokio::sync::mpsc;

use super::{
    paths::{PathsConfig, Servers},
    relays::Relays,
};
use crate::Netns;

/// How often path finding hears that there is traffic with a peer.
const NEWS: Duration = Duration::from_millis(100);
/// Signals that wait for whoever sends them.
const SIGNALS: usize = 256;

/// The paths to the peers.
pub(crate) struct Ways {
    paths: Paths,
    config: PathsConfig,
    underlay: Arc<Netns>,
    port: u16,
    signals: mpsc::Sender<(WgPublicKey, Signal)>,
    wanted: News<WgPublicKey>,
    seen: News<(WgPublicKey, Path)>,
}

/// Keeps what is said over and over from being heard more often than [`NEWS`].
struct News<T>(Option<(T, Instant)>);

impl<T: PartialEq> News<T> {
    fn is_new(&mut self, what: T, now: Instant) -> bool {
        let is_new = self
            .0
            .as_ref()
            .is_none_or(|(last, at)| *last != what || now.saturating_duration_since(*at) >= NEWS);
        if is_new {
            self.0 = Some((what, now));
        }
        is_new
    }
}

impl Ways {
    /// For the device with this key and port. Also the reading end of its signals.
    pub(crate) fn new(
        key: WgPublicKey,
        config: PathsConfig,
        underlay: Arc<Netns>,
        port: u16,
    ) -> (Self, mpsc::Receiver<(WgPublicKey, Signal)>) {
        let (signals, reader) = mpsc::channel(SIGNALS);
        let pool = config.pool.clone();
        let paths = Paths::new(Config { key, pool }, |bytes: &mut [u8]| OsRandom.fill(bytes));
        (Self { paths, config, underlay, port, signals, wanted: News(None), seen: News(None) }, reader)
    }

    pub(crate) fn set_peers(&mut self, peers: &[PeerConfig], now: Instant) {
        let peer = |peer: &PeerConfig| PathPeer { key: peer.public_key, endpoints: peer.endpoints.clone() };
        let peers: Vec<PathPeer> = peers.iter().map(peer).collect();
        self.paths.set_peers(&peers, now);
    }

    pub(crate) fn set_local(&mut self, addresses: &[SocketAddr], now: Instant) {
        self.paths.set_local(addresses, now);
    }

    pub(crate) fn set_servers(&mut self, servers: Servers, relays: &mut Relays, now: Instant) {
        self.paths.set_stun_servers(&servers.stun, now);
        let Self { paths, config, underlay, .. } = self;
        relays.set(servers.relays, servers.token.as_ref(), config, underlay, paths, now);
    }

    pub(crate) fn handle_signal(&mut self, from: &WgPublicKey, signal: Signal, now: Instant) {
        self.paths.handle_signal(from, signal, now);
    }

    /// A datagram that is neither WireGuard's nor garbage. False when it was of no use.
    pub(crate) fn handle_stun(
        &mut self,
        local: Option<IpAddr>,
        remote: SocketAddr,
        bytes: &[u8],
        now: Instant,
    ) -> bool {
        local.is_some_and(|local| {
            self.paths.handle_stun(SocketAddr::new(local, self.port), remote, bytes, now)
        })
    }

    /// There was a packet for `peer`.
    pub(crate) fn wants(&mut self, peer: WgPublicKey, now: Instant) {
        if self.wanted.is_new(peer, now) {
            self.paths.wants(&peer, now);
        }
    }

    /// There was an authentic datagram of `peer`.
    pub(crate) fn saw(&mut self, peer: WgPublicKey, path: Path, now: Instant) {
        if self.seen.is_new((peer, path), now) {
            self.paths.saw_traffic(&peer, path, now);
        }
    }

    /// A relay has another state.
    pub(crate) fn handle_relays(&mut self, relays: &mut Relays, now: Instant) {
        relays.tell(&mut self.paths, now);
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.paths.poll_timeout()
    }

    /// Does what time asks for, and has what came of it all sent: checks by `check`, what WireGuard has to know to `tell`, signals by
    /// whoever reads them.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        mut check: impl FnMut(SocketAddr, IpAddr, &[u8]),
        mut tell: impl FnMut(Event),
    ) {
        self.paths.handle_timeout(now);
        while let Some(signal) = self.paths.poll_signal() {
            // Whoever does not take signals gets newer ones later: they are repeated until they are answered.
            let _ = self.signals.try_send(signal);
        }
        while let Some(transmit) = self.paths.poll_transmit() {
            check(transmit.remote, transmit.local.ip(), &transmit.payload);
        }
        while let Some(event) = self.paths.poll_event() {
            tell(event);
        }
    }

    /// Whether there is traffic with anybody, or was lately.
    pub(crate) fn is_active(&self) -> bool {
        self.paths.is_active()
    }

    pub(crate) fn status(&self, peer: &WgPublicKey) -> Option<PathStatus> {
        self.paths.status(peer)
    }
}
