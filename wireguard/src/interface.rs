//! The device's state: its peers, their allowed IPs and what is under way with them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::{WgPrivateKey, WgPublicKey};

use crate::{
    Drops, Output, Packets, Path, Peer, PeerConfig, ip,
    load::{Admission, Load},
    noise::{self, Addressee, Identity, Opened, Received, Sealed},
    routes::Routes,
    unreachable,
};

/// How often the timers of the sessions are looked at. They are seconds long.
const TICK: Duration = Duration::from_millis(250);

/// Unreachable errors sent between two ticks: enough for every honest program to hear of its mistake.
const UNREACHABLES_PER_TICK: u32 = 64;

/// A peer's place in [`Interface::slots`].
type Slot = usize;

/// What is under way with the peers.
#[derive(Default)]
struct Exchanges {
    /// Sessions and handshakes by the index we chose for them.
    by_index: HashMap<u32, Slot>,
    /// No initiation of any peer is due again before.
    retransmit_at: Option<Instant>,
}

/// A WireGuard interface.
pub struct Interface {
    identity: Identity,
    mtu: u16,
    slots: Vec<Option<Peer>>,
    by_key: HashMap<WgPublicKey, Slot>,
    exchanges: Exchanges,
    sweep_at: usize,
    next_tick: Instant,
    routes: Routes<Slot>,
    /// What the peers are reached at *through* the interface. Were one of these taken for a peer's endpoint, where the
    /// socket's namespace is the link's too, its datagrams would come back to be encrypted again, for ever.
    inner: Routes<()>,
    load: Load,
    unreachables: u32,
    drops: Drops,
}

impl Interface {
    /// An interface without peers, for inner packets of at most `mtu` bytes.
    pub fn new(private_key: &WgPrivateKey, mtu: u16, now: Instant) -> Self {
        Self {
            identity: Identity::new(private_key),
            mtu,
            slots: Vec::new(),
            by_key: HashMap::new(),
            exchanges: Exchanges::default(),
            sweep_at: 64,
            next_tick: now,
            routes: Routes::default(),
            inner: Routes::default(),
            load: Load::new(now),
            unreachables: 0,
            drops: Drops::default(),
        }
    }

    /// Makes `wanted` the peers. Those that stay keep their sessions; new ones with keepalive connect at once.
    pub fn set_peers(&mut self, wanted: &[PeerConfig], now: Instant, out: &mut impl Output) {
        let keep: HashMap<WgPublicKey, &PeerConfig> =
            wanted.iter().map(|config| (config.public_key, config)).collect();
        self.by_key.retain(|key, slot| {
            let kept = keep.contains_key(key);
            if !kept {
                self.slots[*slot] = None;
            }
            kept
        });
        self.exchanges.by_index.retain(|_, slot| self.slots[*slot].is_some());
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
            let retry = peer.reconfigure(config, candidates);
            self.exchanges.send(peer, slot, retry, now, out);
            return Some(slot);
        }
        let mut peer = Peer::new(&self.identity, config, candidates)?;
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        let first = peer.tick();
        self.exchanges.send(&mut peer, slot, first, now, out);
        self.slots[slot] = Some(peer);
        self.by_key.insert(config.public_key, slot);
        Some(slot)
    }

    /// Encrypts packets of the link for the peer they are for.
    pub fn handle_packets(&mut self, packets: &mut impl Packets, now: Instant, out: &mut impl Output) {
        while let Some(len) = packets.next_len() {
            let mut packet = vec![0; len];
            packets.write(&mut packet);
            self.handle_packet(&packet, now, out);
        }
    }

    fn handle_packet(&mut self, packet: &[u8], now: Instant, out: &mut impl Output) {
        let Some(header) = ip::parse(packet) else {
            self.drops.malformed += 1;
            return;
        };
        let packet = &packet[..header.len];
        let Some(slot) = self.routes.lookup(header.destination) else {
            self.drops.no_route += 1;
            return self.refuse(packet, out);
        };
        match self.slots[slot].as_mut() {
            Some(peer) if peer.is_reachable() => {
                let sealed = peer.seal(packet, self.mtu);
                self.exchanges.send(peer, slot, sealed, now, out);
            }
            _ => {
                self.drops.no_endpoint += 1;
                self.refuse(packet, out);
            }
        }
    }

    /// Tells the sender of a packet at once that nobody is there, so that it does not wait for a timeout.
    fn refuse(&mut self, packet: &[u8], out: &mut impl Output) {
        if self.unreachables < UNREACHABLES_PER_TICK
            && let Some(error) = unreachable::reply_to(packet)
        {
            self.unreachables += 1;
            out.deliver(&error);
        }
    }

    /// Handles a datagram of the underlay.
    pub fn handle_datagram(&mut self, from: Path, datagram: &mut [u8], now: Instant, out: &mut impl Output) {
        if from.remote().is_some_and(|remote| self.inner.lookup(remote.ip()).is_some()) {
            self.drops.routing_loop += 1;
            return;
        }
        let admission = match noise::is_handshake(datagram) {
            // Nothing can be authenticated: no work is done for strangers.
            _ if self.by_key.is_empty() => Admission::Refused,
            true => self.load.admit(now),
            false => Admission::Normal,
        };
        let strict = match admission {
            Admission::Refused => {
                self.drops.handshake_refused += 1;
                return;
            }
            Admission::WithCookie => true,
            Admission::Normal => false,
        };
        let (slot, sealed, is_handshake) = match self.identity.receive(from, datagram, strict) {
            Received::Malformed => {
                self.drops.malformed += 1;
                return;
            }
            Received::Refused => {
                self.drops.handshake_refused += 1;
                return;
            }
            Received::Answer(cookie) => {
                self.drops.handshake_refused += 1;
                return cookie.transmit(from, out);
            }
            Received::For(Addressee::Key(key), message) => (self.by_key.get(&key), message, true),
            Received::For(Addressee::Index(index), message) => {
                (self.exchanges.by_index.get(&index), message, false)
            }
        };
        let Some(&slot) = slot else {
            self.drops.unknown_peer += 1;
            return;
        };
        let Some(peer) = self.slots[slot].as_mut() else { return };
        match peer.open(sealed, from, now) {
            Opened::Refused if is_handshake => self.drops.handshake_refused += 1,
            Opened::Refused => self.drops.unauthenticated += 1,
            Opened::Nothing => {}
            Opened::Answer(answer) => self.exchanges.send(peer, slot, Some(answer), now, out),
            Opened::Packet(packet) => {
                let packet = packet.as_bytes();
                match ip::parse(packet) {
                    _ if packet.is_empty() => {}
                    None => self.drops.malformed += 1,
                    Some(header) if self.routes.lookup(header.source) != Some(slot) => {
                        self.drops.wrong_source += 1;
                    }
                    // The padding ends here.
                    Some(header) => out.deliver(&packet[..header.len]),
                }
            }
        }
        while let Some(queued) = peer.next_queued(self.mtu) {
            self.exchanges.send(peer, slot, Some(queued), now, out);
        }
    }

    /// When [`Self::handle_timeout`] is to be called next; `None` when nothing is to come.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.by_key.is_empty() {
            return None;
        }
        Some(self.exchanges.retransmit_at.map_or(self.next_tick, |at| at.min(self.next_tick)))
    }

    /// Does what time asks for. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl Output) {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now, out);
        }
        if self.exchanges.retransmit_at.is_some_and(|at| at <= now) {
            let due = self.slots.iter_mut().flatten().filter_map(|peer| peer.retransmit(now, out));
            self.exchanges.retransmit_at = due.min();
        }
    }

    fn tick(&mut self, now: Instant, out: &mut impl Output) {
        self.identity.handle_tick();
        self.unreachables = 0;
        for (slot, peer) in self.slots.iter_mut().enumerate() {
            if let Some(peer) = peer {
                let due = peer.tick();
                self.exchanges.send(peer, slot, due, now, out);
            }
        }
        let by_index = &mut self.exchanges.by_index;
        if by_index.len() >= self.sweep_at {
            by_index.retain(|index, _| self.identity.in_use(*index));
            self.sweep_at = 64.max(2 * by_index.len());
        }
    }

    /// The peers.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().flatten()
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }
}

impl Exchanges {
    /// Sends what a peer has to say, and notes the index under which the answer will come.
    fn send(
        &mut self,
        peer: &mut Peer,
        slot: Slot,
        sealed: Option<Sealed>,
        now: Instant,
        out: &mut impl Output,
    ) {
        let Some(sealed) = sealed else { return };
        if let Some(index) = sealed.local_index() {
            self.by_index.insert(index, slot);
        }
        if let Some(again) = peer.transmit(&sealed, now, out) {
            self.retransmit_at = Some(self.retransmit_at.map_or(again, |at| at.min(again)));
        }
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

#[cfg(test)]
mod tests;
