//! The state machine as its owner sees it.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::{WgPublicKey, signal::Signal};
use lattice_wireguard::{Path, RelayNumber};

use crate::{
    Config, Event, PathPeer, Transmit, address,
    limits::MAX_BASES,
    peer::Peer,
    remote,
    shared::Shared,
    status::{self, PathStatus},
    stun::{Class, Message, TransactionId},
};

mod steps;

type Slot = u32;

/// The paths to all peers.
pub struct Paths {
    shared: Shared,
    peers: Vec<Option<Peer>>,
    by_key: HashMap<WgPublicKey, Slot>,
    /// Whose checks name which fragment of ours; entries of ended sessions are swept out.
    by_ufrag: HashMap<String, Slot>,
    /// Whose check an answer belongs to.
    transactions: HashMap<TransactionId, (Slot, Instant)>,
    sweep_at: usize,
    timers: BTreeSet<(Instant, Slot)>,
    sessions: usize,
    signals: VecDeque<(WgPublicKey, Signal)>,
    events: VecDeque<Event>,
}

impl Paths {
    /// No peers yet. `random` fills its argument from a cryptographic generator; it makes passwords.
    pub fn new(config: Config, random: impl FnMut(&mut [u8]) + Send + 'static) -> Self {
        Self {
            shared: Shared::new(config, Box::new(random)),
            peers: Vec::new(),
            by_key: HashMap::new(),
            by_ufrag: HashMap::new(),
            transactions: HashMap::new(),
            sweep_at: 1024,
            timers: BTreeSet::new(),
            sessions: 0,
            signals: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Makes `wanted` the peers; those that stay keep what goes on with them.
    pub fn set_peers(&mut self, wanted: &[PathPeer], now: Instant) {
        let keep: HashSet<WgPublicKey> = wanted.iter().map(|peer| peer.key).collect();
        let gone: Vec<Slot> =
            self.by_key.iter().filter(|(key, _)| !keep.contains(key)).map(|(_, slot)| *slot).collect();
        for slot in gone {
            self.remove(slot);
        }
        let mut free: Vec<Slot> =
            (0..).zip(&self.peers).filter(|(_, peer)| peer.is_none()).map(|(slot, _)| slot).collect();
        for peer in wanted {
            if peer.key == self.shared.key {
                continue;
            }
            if let Some(&slot) = self.by_key.get(&peer.key) {
                let known = self.peers[slot as usize].as_mut();
                if known.is_some_and(|known| known.set_endpoints(peer)) {
                    self.with_session(slot, |session, endpoints, _, shared| {
                        session.add_pairs(endpoints, shared, now)
                    });
                    self.step(slot, now);
                }
                continue;
            }
            let new = Some(Peer::new(peer, self.shared.key.0 < peer.key.0));
            let slot = match free.pop() {
                Some(slot) => slot,
                None => {
                    self.peers.push(None);
                    self.peers.len() as Slot - 1
                }
            };
            self.peers[slot as usize] = new;
            self.by_key.insert(peer.key, slot);
        }
    }

    fn remove(&mut self, slot: Slot) {
        let Some(peer) = self.peers[slot as usize].take() else { return };
        self.by_key.remove(&peer.key);
        peer.due.map(|due| self.timers.remove(&(due, slot)));
        if peer.session.is_some() {
            self.session_ended();
        }
    }

    /// The addresses of our one UDP socket, with its port, best first: those of the links it may send from. The first
    /// [`MAX_BASES`] usable ones count. A change is a change of network: everything is gathered anew.
    pub fn set_local(&mut self, addresses: &[SocketAddr], now: Instant) {
        let mut bases: Vec<SocketAddr> = Vec::new();
        for base in addresses.iter().map(|base| address::canonical(*base)) {
            if is_base(base) && !bases.contains(&base) && bases.len() < MAX_BASES {
                bases.push(base);
            }
        }
        if self.shared.gather.set_bases(bases, now) {
            self.pump(now);
            self.for_sessions(now, |session, endpoints, we_control, shared| {
                session.moved(endpoints, we_control, shared, now);
            });
        }
    }

    /// The STUN servers, by address.
    pub fn set_stun_servers(&mut self, servers: &[SocketAddr], now: Instant) {
        self.shared.gather.set_servers(servers, now);
        self.pump(now);
    }

    /// We are connected to a relay, and this is its name and, as soon as it is measured, its round trip. Smooth that: when it changes the
    /// relays' order, all sessions tell their peers.
    pub fn set_relay(&mut self, number: RelayNumber, name: &str, rtt: Option<Duration>, now: Instant) {
        if self.shared.relays.set(number, name, rtt) {
            self.for_sessions(now, |session, _, _, _| session.signalling.say(now));
        }
    }

    /// We are not any more.
    pub fn remove_relay(&mut self, number: RelayNumber, now: Instant) {
        if self.shared.relays.remove(number) {
            self.for_sessions(now, |session, _, _, _| session.signalling.say(now));
        }
    }

    /// There is a packet for `peer`; may be called for each, before it is sealed, but not for WireGuard's own keepalives: they would
    /// keep the session for ever. An event that this causes is where the packet should go.
    pub fn wants(&mut self, peer: &WgPublicKey, now: Instant) {
        let Some(&slot) = self.by_key.get(peer) else { return };
        self.begin(slot, now);
        let mut is_news = false;
        self.with_session(slot, |session, _, _, _| is_news = session.wants(now));
        if is_news {
            self.step(slot, now);
        }
    }

    /// WireGuard authenticated a packet of `peer` that came by `path`.
    pub fn saw_traffic(&mut self, peer: &WgPublicKey, path: Path, now: Instant) {
        let Some(&slot) = self.by_key.get(peer) else { return };
        let Some(known) = self.peers[slot as usize].as_mut() else { return };
        if path.remote().is_some() {
            known.seen_direct = Some((path, now));
        }
        known.session.iter_mut().for_each(|session| session.saw_traffic(now));
    }

    /// A signal that `from` sealed.
    pub fn handle_signal(&mut self, from: &WgPublicKey, signal: Signal, now: Instant) {
        let Some(&slot) = self.by_key.get(from) else { return };
        if !remote::is_sane(&signal) {
            return;
        }
        self.begin(slot, now);
        self.with_session(slot, |session, endpoints, we_control, shared| {
            session.heard(signal, endpoints, we_control, shared, now);
        });
        self.step(slot, now);
    }

    /// A datagram that [`crate::mux::classify`] took for STUN, which came to `local` from `remote`. Says whether it was one that we
    /// waited for or that proved to be a peer's.
    pub fn handle_stun(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> bool {
        let remote = address::canonical(remote);
        let Some(message) = Message::parse(datagram) else { return false };
        if message.class == Class::Success
            && let Some(changed) =
                self.shared.gather.handle(remote, &message.transaction, message.mapped, now)
        {
            if changed {
                self.for_sessions(now, |session, _, _, _| session.mapped_anew(now));
            }
            return true;
        }
        let local = address::canonical(local);
        let bases = self.shared.gather.bases();
        let Some(index) = bases.iter().position(|base| base.ip() == local.ip()) else { return false };
        let base = (index, bases[index]);
        if !address::may_be_probed(remote, &self.shared.pool) || bases.contains(&remote) {
            return false;
        }
        let slot = match message.class {
            Class::Request => message.receiver.and_then(|ufrag| self.by_ufrag.get(ufrag)).copied(),
            Class::Success => self.transactions.get(&message.transaction).map(|(slot, _)| *slot),
        };
        let Some(slot) = slot else { return false };
        let mut accepted = false;
        self.with_session(slot, |session, _, _, shared| match message.class {
            Class::Request => {
                let answer = session.requested(&message, base, remote, now);
                accepted = answer.is_some();
                answer.into_iter().for_each(|answer| shared.transmit(answer));
            }
            Class::Success => accepted = session.answered(&message, base.1, remote, now),
        });
        if accepted {
            self.step(slot, now);
        }
        accepted
    }

    /// Does what time asks for. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.pump(now);
        while let Some(&(due, slot)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            self.peers[slot as usize].iter_mut().for_each(|peer| peer.due = None);
            self.step(slot, now);
        }
    }

    /// When [`Self::handle_timeout`] is to be called next; `None` while there is nothing to do, as with peers that are all idle.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.timers.first().map(|(due, _)| *due);
        peers.into_iter().chain(self.shared.gather.poll_timeout()).min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// The next signal to seal and send to that peer. It may be lost.
    pub fn poll_signal(&mut self) -> Option<(WgPublicKey, Signal)> {
        self.signals.pop_front()
    }

    /// What the WireGuard layer is to do next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether there is traffic with any peer, or was lately.
    pub fn is_active(&self) -> bool {
        self.sessions > 0
    }

    /// How things are with a peer; `None` if there is no such.
    pub fn status(&self, peer: &WgPublicKey) -> Option<PathStatus> {
        let slot = self.by_key.get(peer)?;
        Some(status::of(self.peers[*slot as usize].as_ref()?, &self.shared))
    }
}

/// Whether an address of ours is one that anything can be sent from to others.
fn is_base(base: SocketAddr) -> bool {
    let is_link_local = matches!(base, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local());
    base.port() != 0
        && !base.ip().is_unspecified()
        && !base.ip().is_loopback()
        && !base.ip().is_multicast()
        && !is_link_local
}
