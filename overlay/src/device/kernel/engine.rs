//! The thread of a device of the kernel's: finds paths, as the user-space device does, and tells the kernel which to use.
//!
//! Packets of a direct path never come here: the kernel sends and receives them by itself. What comes here is STUN, by raw sockets, and
//! what is for peers without a direct path, or from them by a relay, by their loopback addresses.

mod orders;
mod wait;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use lattice_paths::{
    Event,
    mux::{self, Kind},
};
use lattice_wire::WgPublicKey;
use nix::sys::eventfd::EventFd;

use super::{
    link::WgLink,
    loopback::Loopback,
    narrow::Narrow,
    peers::{Peers, To},
    raw::Raw,
};
use crate::device::{DeviceError, clock::Clock, commands::Command, core::READS, relays::Relays, ways::Ways};

/// How often the kernel's counters are read while there is traffic,
const LOOK: Duration = Duration::from_millis(500);
/// while a handshake is under way that was begun at a peer's home,
const LOOK_SOON: Duration = Duration::from_millis(100);
/// and otherwise.
const LOOK_SELDOM: Duration = Duration::from_secs(15);
/// Reading them takes no more than one part in so many of the time: with thousands of peers it takes milliseconds.
const SHARE: u32 = 50;

/// Room for what comes at once.
const BUFFER: usize = 1 << 16;

/// The thread's state.
pub(super) struct Engine {
    link: Arc<WgLink>,
    narrow: Narrow,
    clock: Clock,
    raw: Raw,
    loopback: Loopback,
    relays: Relays,
    ways: Option<Ways>,
    peers: Peers,
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
    buffer: Vec<u8>,
    /// Where the kernel is to send, and was not told yet.
    moves: Vec<(WgPublicKey, SocketAddr)>,
    looked: Instant,
    look_cost: Duration,
    malformed: u64,
    /// What the kernel sent to homes, and no relay took, nor was there an address to send it to.
    lost: u64,
}

/// What an engine is made from.
pub(super) struct Parts {
    pub(super) link: Arc<WgLink>,
    pub(super) narrow: Narrow,
    pub(super) raw: Raw,
    pub(super) loopback: Loopback,
    pub(super) ways: Option<Ways>,
    pub(super) commands: Receiver<Command>,
    pub(super) wake: Arc<EventFd>,
}

impl Engine {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { link, narrow, raw, loopback, ways, commands, wake } = parts;
        let (clock, peers) = (Clock::new(), Peers::new(loopback.homes()));
        Self {
            link,
            narrow,
            looked: clock.now(),
            clock,
            raw,
            loopback,
            relays: Relays::default(),
            ways,
            peers,
            commands,
            wake,
            buffer: vec![0; BUFFER],
            moves: Vec::new(),
            look_cost: Duration::ZERO,
            malformed: 0,
            lost: 0,
        }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the link is gone, or the underlay cannot be entered.
    pub(super) fn run(mut self) -> Result<(), DeviceError> {
        // Routes are asked for there.
        self.link.underlay.enter().map_err(DeviceError::Namespace)?;
        loop {
            let ready = self.wait().map_err(DeviceError::Socket)?;
            let now = self.clock.now();
            if ready.command && self.handle_commands(now)? {
                return Ok(());
            }
            if ready.home {
                self.handle_homes(now);
            }
            if ready.stun {
                self.handle_stun(now);
            }
            if ready.relay {
                self.handle_relays(now);
            }
            if self.look_at().is_some_and(|at| at <= now) {
                self.look(now)?;
            }
            self.handle_timeout(now);
            self.loopback.flush();
            self.apply_moves()?;
            self.keep_raw();
        }
    }

    /// What the kernel sent to peers' homes.
    fn handle_homes(&mut self, now: Instant) {
        for _ in 0..READS {
            let (slot, len, segment) = match self.loopback.receive(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            for at in (0..len).step_by(segment) {
                let datagram = &self.buffer[at..len.min(at + segment)];
                let Some(outgoing) = self.peers.sent_home(slot, datagram, now) else {
                    self.malformed += 1;
                    continue;
                };
                let is_sent = !self.narrow.is_too_long(&outgoing.peer, datagram, now)
                    && send(&self.relays, &mut self.raw, &outgoing.peer, &outgoing.to, datagram);
                self.lost += u64::from(!is_sent);
                self.moves.extend(outgoing.endpoint.map(|endpoint| (outgoing.peer, endpoint)));
                if let Some(ways) = self.ways.as_mut().filter(|_| outgoing.is_wanted) {
                    self.peers.is_wanted(&outgoing.peer);
                    ways.wants(outgoing.peer, now);
                }
            }
        }
    }

    fn handle_stun(&mut self, now: Instant) {
        for _ in 0..READS {
            let received = match self.raw.receive(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            // The kernel's WireGuard has the rest.
            let is_stun = mux::classify(received.content) == Kind::Stun;
            let useful = self.ways.as_mut().filter(|_| is_stun).is_some_and(|ways| {
                ways.handle_stun(Some(received.to), received.from, received.content, now)
            });
            self.malformed += u64::from(!useful);
        }
    }

    /// What the relays have.
    fn handle_relays(&mut self, now: Instant) {
        let Self { relays, peers, loopback, buffer, ways, .. } = self;
        for index in 0..relays.len() {
            for _ in 0..READS {
                let Some((relay, peer, len)) = relays.receive(index, buffer) else { break };
                if let Some(slot) = peers.came(&peer, relay) {
                    loopback.push(slot, &buffer[..len]);
                }
            }
        }
        if let Some(ways) = ways {
            ways.handle_relays(relays, now);
        }
    }

    /// Reads the kernel's counters, and where it thinks that the peers are.
    fn look(&mut self, now: Instant) -> Result<(), DeviceError> {
        self.looked = now;
        let present = match self.link.peers() {
            Ok(present) => present,
            Err(error @ DeviceError::Stopped(_)) => return Err(error),
            Err(error) => {
                tracing::debug!(device = self.link.name, %error, "the kernel's peers cannot be read");
                return Ok(());
            }
        };
        self.read(&present, now);
        self.look_cost = self.clock.now().saturating_duration_since(now);
        Ok(())
    }

    fn read(&mut self, present: &[wireguard_control::PeerInfo], now: Instant) {
        for info in present {
            let news = self.peers.read(info, now);
            let key = WgPublicKey(info.config.public_key.0);
            self.moves.extend(news.endpoint.map(|endpoint| (key, endpoint)));
            let Some(ways) = &mut self.ways else { continue };
            if let Some(path) = news.came_by {
                ways.saw(key, path, now);
            }
            if news.is_wanted {
                self.peers.is_wanted(&key);
                ways.wants(key, now);
            }
        }
    }

    /// When the counters are to be read.
    fn look_at(&self) -> Option<Instant> {
        if self.peers.is_empty() {
            return None;
        }
        let pause = match &self.ways {
            _ if self.peers.is_searching() => LOOK_SOON,
            Some(ways) if ways.is_active() => LOOK,
            _ => LOOK_SELDOM,
        };
        Some(self.looked + pause.max(self.look_cost * SHARE))
    }

    /// Does what time asks for.
    fn handle_timeout(&mut self, now: Instant) {
        let Self { ways, raw, relays, peers, moves, narrow, lost, .. } = self;
        if let Some(ways) = ways {
            let check = |remote, local, bytes: &[u8]| raw.send(Some(local), remote, bytes);
            ways.handle_timeout(now, check, |event| match event {
                Event::Select { peer, path } => {
                    narrow.select(&peer, path, now);
                    moves.extend(peers.select(&peer, path, now).map(|endpoint| (peer, endpoint)));
                }
                Event::Ended { peer } => moves.extend(peers.end(&peer).map(|home| (peer, home))),
            });
        }
        for (peer, to, initiation) in peers.take_due(now) {
            *lost += u64::from(!send(relays, raw, &peer, &to, &initiation));
        }
    }

    /// Opens the raw sockets while anybody is checked or searched for, and closes them otherwise.
    fn keep_raw(&mut self) {
        if self.peers.is_searching() || self.ways.as_ref().is_some_and(Ways::is_active) {
            if let Err(error) = self.raw.open() {
                tracing::debug!(device = self.link.name, %error, "no raw sockets");
            }
        } else {
            self.raw.close();
        }
    }

    fn apply_moves(&mut self) -> Result<(), DeviceError> {
        if self.moves.is_empty() {
            return Ok(());
        }
        // A peer that was removed must not come back by being moved.
        self.moves.retain(|(peer, _)| self.peers.home(peer).is_some());
        let moved = self.link.move_endpoints(&self.moves);
        self.moves.clear();
        match moved {
            Err(error @ DeviceError::Stopped(_)) => Err(error),
            // The next look finds it where it should not be.
            Err(error) => {
                tracing::debug!(device = self.link.name, %error, "the kernel was not told of a path");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// False when there was nowhere to send it to. What raw sockets do not take, they count.
fn send(relays: &Relays, raw: &mut Raw, peer: &WgPublicKey, to: &To, datagram: &[u8]) -> bool {
    to.direct.iter().for_each(|remote| raw.send(None, *remote, datagram));
    let write = |room: &mut [u8]| room.copy_from_slice(datagram);
    let is_relayed = to.relay.is_some_and(|relay| relays.send(relay, peer, datagram.len(), write));
    is_relayed || !to.direct.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_nowhere_to_go_is_lost_and_what_raw_sockets_refuse_is_counted_there() {
        let (relays, peer, mut raw) = (Relays::default(), WgPublicKey([1; 32]), Raw::new(1));
        let nowhere = To::default();
        let no_relay = To { relay: Some(3), ..To::default() };
        let unroutable = To { relay: Some(3), direct: vec!["255.255.255.255:1".parse().unwrap()] };
        for (to, is_sent, refused) in [(nowhere, false, 0), (no_relay, false, 0), (unroutable, true, 1)] {
            assert_eq!(send(&relays, &mut raw, &peer, &to, &[2; 92]), is_sent, "{to:?}");
            assert_eq!(raw.failed(), refused);
        }
    }
}
