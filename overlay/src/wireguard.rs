//! The WireGuard protocol of one device as a state machine: packets, datagrams and time go in, packets and datagrams
//! come out by an [`Output`]. It opens no socket and no device.
//!
//! ```text
//!   handle_packet    ─►  allowed IPs choose the peer  ─►  seal  ─►  transmit
//!   handle_datagram  ─►  index or key names the peer  ─►  open  ─►  is the source the peer's?  ─►  deliver
//!   handle_tick      ─►  handshakes, keepalives, expiry of every peer
//! ```
//!
//! The Noise handshake, the sessions and their timers are `gotatun`'s, which only [`noise`] names; it reads the clock
//! itself, all else takes the time as an argument.

mod drops;
mod ip;
mod load;
mod noise;
mod peer;
mod routes;
mod unreachable;

use std::{collections::HashMap, net::SocketAddr, time::Instant};

use lattice_wire::{WgPrivateKey, WgPublicKey};

use crate::device::PeerConfig;
pub use drops::Drops;
use load::{Admission, Load};
use noise::{Addressee, Identity, Opened, Received, Sealed};
pub(crate) use peer::Peer;
use routes::Routes;

/// How often [`Interface::handle_tick`] wants to be called.
pub(crate) const TICK: std::time::Duration = std::time::Duration::from_millis(250);

/// Unreachable errors sent between two ticks: enough for every honest program to hear of its mistake.
const UNREACHABLES_PER_TICK: u32 = 64;

/// Where the state machine's products go.
pub(crate) trait Output {
    /// Sends an encrypted datagram into the underlay.
    fn transmit(&mut self, to: SocketAddr, datagram: &[u8]);
    /// Hands a decrypted packet to the link.
    fn deliver(&mut self, packet: &[u8]);
}

/// A peer's place in [`Interface::slots`].
type Slot = usize;

/// A WireGuard interface.
pub(crate) struct Interface {
    identity: Identity,
    mtu: u16,
    slots: Vec<Option<Peer>>,
    by_key: HashMap<WgPublicKey, Slot>,
    /// Sessions and handshakes by the index we chose for them.
    by_index: HashMap<u32, Slot>,
    sweep_at: usize,
    routes: Routes<Slot>,
    load: Load,
    unreachables: u32,
    drops: Drops,
}

impl Interface {
    /// An interface without peers, for inner packets of at most `mtu` bytes.
    pub(crate) fn new(private_key: &WgPrivateKey, mtu: u16, now: Instant) -> Self {
        Self {
            identity: Identity::new(private_key),
            mtu,
            slots: Vec::new(),
            by_key: HashMap::new(),
            by_index: HashMap::new(),
            sweep_at: 64,
            routes: Routes::default(),
            load: Load::new(now),
            unreachables: 0,
            drops: Drops::default(),
        }
    }

    /// Makes `wanted` the peers. Those that stay keep their sessions; new ones with keepalive connect at once.
    pub(crate) fn set_peers(&mut self, wanted: &[PeerConfig], out: &mut impl Output) {
        let keep: HashMap<WgPublicKey, &PeerConfig> =
            wanted.iter().map(|config| (config.public_key, config)).collect();
        self.by_key.retain(|key, slot| {
            let kept = keep.contains_key(key);
            if !kept {
                self.slots[*slot] = None;
            }
            kept
        });
        self.by_index.retain(|_, slot| self.slots[*slot].is_some());
        self.routes = Routes::default();
        for config in wanted {
            let Some(slot) = self.upsert(config, out) else {
                tracing::warn!(peer = %config.public_key, "a peer's key is unusable: the peer is left out");
                continue;
            };
            for net in &config.allowed_ips {
                self.routes.insert(*net, slot);
            }
        }
        self.routes.finish();
    }

    fn upsert(&mut self, config: &PeerConfig, out: &mut impl Output) -> Option<Slot> {
        if let Some(&slot) = self.by_key.get(&config.public_key) {
            let peer = self.slots[slot].as_mut()?;
            let retry = peer.reconfigure(config);
            send(peer, slot, retry, &mut self.by_index, out);
            return Some(slot);
        }
        let mut peer = Peer::new(&self.identity, config)?;
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        let first = peer.tick();
        send(&mut peer, slot, first, &mut self.by_index, out);
        self.slots[slot] = Some(peer);
        self.by_key.insert(config.public_key, slot);
        Some(slot)
    }

    /// Encrypts a packet of the link for the peer it is for.
    pub(crate) fn handle_packet(&mut self, packet: &[u8], out: &mut impl Output) {
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
                send(peer, slot, sealed, &mut self.by_index, out);
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
    pub(crate) fn handle_datagram(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        out: &mut impl Output,
    ) {
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
                return out.transmit(from, cookie.as_bytes());
            }
            Received::For(Addressee::Key(key), message) => (self.by_key.get(&key), message, true),
            Received::For(Addressee::Index(index), message) => (self.by_index.get(&index), message, false),
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
            Opened::Answer(answer) => send(peer, slot, Some(answer), &mut self.by_index, out),
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
            send(peer, slot, Some(queued), &mut self.by_index, out);
        }
    }

    /// Does what time asks for. Call it every [`TICK`].
    pub(crate) fn handle_tick(&mut self, out: &mut impl Output) {
        self.identity.handle_tick();
        self.unreachables = 0;
        for (slot, peer) in self.slots.iter_mut().enumerate() {
            if let Some(peer) = peer {
                let due = peer.tick();
                send(peer, slot, due, &mut self.by_index, out);
            }
        }
        if self.by_index.len() >= self.sweep_at {
            self.by_index.retain(|index, _| self.identity.in_use(*index));
            self.sweep_at = 64.max(2 * self.by_index.len());
        }
    }

    /// Whether there is any peer to tick for.
    pub(crate) fn is_idle(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The peers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().flatten()
    }

    /// What was dropped so far.
    pub(crate) fn drops(&self) -> Drops {
        self.drops
    }
}

/// Sends what a peer has to say, and notes the index under which the answer will come.
fn send(
    peer: &mut Peer,
    slot: Slot,
    sealed: Option<Sealed>,
    by_index: &mut HashMap<u32, Slot>,
    out: &mut impl Output,
) {
    let Some(sealed) = sealed else { return };
    if let Some(index) = sealed.local_index() {
        by_index.insert(index, slot);
    }
    peer.destinations(&sealed, |to| out.transmit(to, sealed.as_bytes()));
}

#[cfg(test)]
mod tests;
