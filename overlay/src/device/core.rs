//! What every user-space device is, whatever its inner packets come from and go to: WireGuard, its paths, its datagrams, and what its
//! owner asks for.
//!
//! Nothing is allocated per packet here, and nothing waits: a device's thread calls in when there is something to do. Where the packets
//! go is an argument of each call, so the code is made once for each kind of [`Inside`] and costs nothing.

mod orders;
pub(crate) use orders::Done;

use std::{
    io,
    sync::{Arc, mpsc::Receiver},
    time::{Instant, SystemTime},
};

use lattice_paths::{
    Event,
    mux::{self, Kind},
};
use lattice_wire::lrp;
use lattice_wireguard::{Interface, Output, Packets, Path, Peer};
use nix::sys::eventfd::EventFd;

use super::{
    Drops, PeerStatus,
    clock::Clock,
    commands::Command,
    gate::Gate,
    relays::Relays,
    udp::{Udp, Way},
    vnet::{Header, MAX_PACKET, Segments},
    ways::Ways,
};

/// Reads in a row from one side before the other has its turn.
pub(crate) const READS: usize = 64;

/// Bytes after which the other side has its turn too, so that it waits for some hundred microseconds at most.
pub(crate) const BATCH: usize = 256 << 10;

/// The largest inner packet that every relay carries by QUIC, in bytes: WireGuard adds 32 to it.
pub(crate) const RELAYED_MTU: usize = lrp::FULL_SIZE - 32;

/// Where decrypted packets go.
pub(crate) trait Inside {
    /// Takes a packet that the policy lets in.
    fn take(&mut self, packet: &mut [u8]);
}

/// A device but for its inside.
pub(crate) struct Core {
    pub(crate) clock: Clock,
    pub(crate) interface: Interface,
    pub(crate) outside: Outside,
    pub(crate) buffer: Vec<u8>,
    ways: Option<Ways>,
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
}

/// The way to the underlay, and the policy before it.
pub(crate) struct Outside {
    pub(crate) udp: Udp,
    pub(crate) relays: Relays,
    pub(crate) gate: Option<Gate>,
    pub(crate) malformed: u64,
    /// What a gateway has lost so far.
    pub(crate) beyond: u64,
}

/// Both sides at once, for [`Interface`].
struct Io<'a, I> {
    outside: &'a mut Outside,
    inside: &'a mut I,
}

/// Whether there may be more where something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    /// Nothing was left.
    No,
    /// It was not read to the end.
    Maybe,
}

impl<I: Inside> Output for Io<'_, I> {
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        match path {
            Path::Direct { remote, local } => self.outside.udp.push(Way { remote, local }, len, write),
            Path::Relay { relay, peer } => {
                self.outside.relays.send(relay, &peer, len, write);
            }
        }
    }

    fn deliver(&mut self, packet: &mut [u8]) {
        if self.outside.gate.as_mut().is_none_or(|gate| gate.ingress(packet)) {
            self.inside.take(packet);
        }
    }
}

impl Core {
    pub(crate) fn new(
        interface: Interface,
        udp: Udp,
        gate: Option<Gate>,
        ways: Option<Ways>,
        commands: Receiver<Command>,
        wake: Arc<EventFd>,
    ) -> Self {
        let outside = Outside { udp, relays: Relays::default(), gate, malformed: 0, beyond: 0 };
        let buffer = vec![0; Header::LEN + MAX_PACKET];
        Self { clock: Clock::new(), interface, outside, buffer, ways, commands, wake }
    }

    /// Reads the clock. To be called before anything else of a turn.
    pub(crate) fn begin(&mut self, inside: &mut impl Inside) -> Instant {
        let now = self.now();
        if self.clock.jumped(now) {
            tracing::warn!("the clock jumped: this machine may be a copy, so every session begins anew");
            let Self { interface, outside, .. } = self;
            interface.forget_sessions(now, &mut Io { outside, inside });
        }
        now
    }

    /// Reads the clock, also for the gate.
    pub(crate) fn now(&mut self) -> Instant {
        let now = self.clock.now();
        if let Some(gate) = &mut self.outside.gate {
            gate.begin(self.clock.boot_ns(now));
        }
        now
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let ways = self.ways.as_ref().and_then(Ways::poll_timeout);
        self.interface.poll_timeout().into_iter().chain(ways).min()
    }

    /// What becomes readable when the owner wants something.
    pub(crate) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Receives a batch of datagrams.
    pub(crate) fn handle_datagrams(&mut self, inside: &mut impl Inside, now: Instant) -> More {
        let mut bytes = 0;
        for _ in 0..READS {
            // Errors other than "nothing there" are of single datagrams, such as an ICMP error for one sent earlier.
            let run = match self.outside.udp.receive(&mut self.buffer) {
                Ok(run) => run,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return More::No,
                Err(_) => return More::Maybe,
            };
            let Self { interface, outside, ways, buffer, .. } = self;
            let from = Path::Direct { remote: run.from.remote, local: run.from.local };
            for datagram in buffer[..run.len].chunks_mut(run.segment) {
                let kind = if ways.is_some() { mux::classify(datagram) } else { Kind::WireGuard };
                match (kind, &mut *ways) {
                    (Kind::WireGuard, ways) => {
                        let io = &mut Io { outside: &mut *outside, inside: &mut *inside };
                        let peer = interface.handle_datagram(from, datagram, now, io);
                        if let (Some(peer), Some(ways)) = (peer, ways) {
                            ways.saw(peer, from, now);
                        }
                    }
                    (Kind::Stun, Some(ways)) => {
                        let useful = ways.handle_stun(run.from.local, run.from.remote, datagram, now);
                        outside.malformed += u64::from(!useful);
                    }
                    _ => outside.malformed += 1,
                }
            }
            bytes += run.len;
            if bytes >= BATCH {
                break;
            }
        }
        More::Maybe
    }

    /// Receives what the relays have.
    pub(crate) fn handle_relays(&mut self, inside: &mut impl Inside, now: Instant) -> More {
        let Self { interface, outside, ways: Some(ways), buffer, .. } = self else { return More::No };
        let mut more = More::No;
        for index in 0..outside.relays.len() {
            for left in (0..READS).rev() {
                let Some((relay, peer, len)) = outside.relays.receive(index, buffer) else { break };
                let from = Path::Relay { relay, peer };
                let io = &mut Io { outside: &mut *outside, inside: &mut *inside };
                if let Some(peer) = interface.handle_datagram(from, &mut buffer[..len], now, io) {
                    ways.saw(peer, from, now);
                }
                if left == 0 {
                    more = More::Maybe;
                }
            }
        }
        // Only now, with the bells silent: a state that changes from here on rings again.
        ways.handle_relays(&mut outside.relays, now);
        more
    }

    /// Whether a packet that begins with `head` goes by a relay now.
    pub(crate) fn is_relayed(&self, head: &[u8]) -> bool {
        self.outside.relays.len() > 0 && matches!(self.interface.path_of(head), Some(Path::Relay { .. }))
    }

    /// What to send instead of a TCP segment that the relay on its way would carry by TCP only.
    pub(crate) fn cut<'a>(&self, packet: &'a [u8]) -> Option<Segments<'a>> {
        if packet.len() <= RELAYED_MTU || !self.is_relayed(packet) {
            return None;
        }
        let mut segments = Segments::of_one(packet)?;
        segments.cut_to(RELAYED_MTU);
        Some(segments)
    }

    /// Encrypts packets of the inside, which the policy has let out.
    pub(crate) fn seal(&mut self, packets: &mut impl Packets, inside: &mut impl Inside, now: Instant) {
        // A peer of whom the map knows no address yet may be at our relay: its first packet is not refused for that.
        if let Some(ways) = &mut self.ways
            && let Some(peer) = self.interface.peer_without_path(packets.head())
        {
            ways.wants(peer, now);
            self.find_ways(inside, now);
        }
        let Self { interface, outside, ways, .. } = self;
        let peer = interface.handle_packets(packets, now, &mut Io { outside, inside });
        if let (Some(peer), Some(ways)) = (peer, ways) {
            ways.wants(peer, now);
        }
    }

    /// Does what time asks for.
    pub(crate) fn handle_timeout(&mut self, inside: &mut impl Inside, now: Instant) {
        let Self { interface, outside, .. } = self;
        interface.handle_timeout(now, &mut Io { outside, inside: &mut *inside });
        self.find_ways(inside, now);
    }

    /// Lets path finding work, and takes the paths that it has chosen.
    fn find_ways(&mut self, inside: &mut impl Inside, now: Instant) {
        let Self { interface, outside, ways, .. } = self;
        let Some(ways) = ways else { return };
        let mut chosen = Vec::new();
        let check = |remote, local, bytes: &[u8]| {
            let way = Way { remote, local: Some(local) };
            outside.udp.push(way, bytes.len(), |room| room.copy_from_slice(bytes));
        };
        ways.handle_timeout(now, check, |event| match event {
            Event::Select { peer, path } => chosen.push((peer, path)),
            // WireGuard here tells of each packet itself.
            Event::Ended { .. } => {}
        });
        for (peer, path) in chosen {
            interface.set_path(&peer, path, now, &mut Io { outside: &mut *outside, inside: &mut *inside });
        }
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let (now, wall) = (self.clock.now(), SystemTime::now());
        let status = |peer: &Peer| PeerStatus {
            public_key: peer.public_key(),
            endpoint: peer.path().and_then(|path| path.remote()),
            path: self.ways.as_ref().and_then(|ways| ways.status(&peer.public_key())),
            last_handshake: peer
                .last_handshake()
                .and_then(|at| wall.checked_sub(now.saturating_duration_since(at))),
            rx_bytes: peer.rx_bytes(),
            tx_bytes: peer.tx_bytes(),
        };
        self.interface.peers().map(status).collect()
    }

    fn drops(&self, link: u64) -> Drops {
        let drops = self.interface.drops();
        Drops {
            malformed: drops.malformed + self.outside.malformed,
            link,
            underlay: self.outside.udp.failed(),
            beyond: self.outside.beyond,
            ..drops
        }
    }
}
