//! The user-space device's thread: waits for packets, datagrams, time and commands, and runs each batch to its end. It
//! owns all state, so nothing is locked, and it reads the clock twice per batch.
//!
//! ```text
//!   tun ─ a packet of up to 64 KiB ─► gate, once ─► cut and sealed into a run of udp ─► sent at the batch's end, or when full
//!   udp ─ a run of datagrams ─► opened in place ─► gate, each ─► put together ─► tun, at the end of the turn
//! ```
//!
//! Nothing is allocated per packet here. What cannot be handed on is dropped and counted: a full socket is waited for some
//! milliseconds, meanwhile packets gather in the link's queue and datagrams in the socket's; beyond, the kernel drops them.
//!
//! One thread is enough for a sandbox: it moves several Gbit/s, and the agent, which makes or takes every byte of it, needs a
//! core itself. Two threads could share the peers, never one peer's packets, whose order TCP depends on; most
//! sandboxes have one peer that they talk much with, so there would be nothing to share.

use std::{
    array, io,
    os::fd::AsFd,
    sync::{Arc, mpsc::Receiver},
    time::{Instant, SystemTime},
};

use lattice_paths::mux::{self, Kind};
use lattice_wire::reach::MAX_SERVERS;
use lattice_wireguard::{Interface, Output, Path, Peer, Single};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};

use super::{
    Drops, PeerStatus,
    clock::Clock,
    commands::Command,
    gate::Gate,
    relays::Relays,
    tun::Tun,
    udp::{Udp, Way},
    vnet::{Coalescer, Frame, Header, MAX_PACKET},
    ways::Ways,
};

/// Reads in a row from one side before the other has its turn.
const READS: usize = 64;

/// Bytes after which the other side has its turn too, so that it waits for some hundred microseconds at most.
const BATCH: usize = 256 << 10;

/// The thread's state.
pub(super) struct Engine {
    clock: Clock,
    interface: Interface,
    ways: Option<Ways>,
    io: Io,
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
    buffer: Vec<u8>,
}

struct Io {
    tun: Tun,
    udp: Udp,
    relays: Relays,
    gate: Option<Gate>,
    coalescer: Coalescer,
    malformed: u64,
    link_drops: u64,
}

impl Io {
    /// Whether the policy lets out what one read of the link yielded. The sender of what it does not is told at once.
    fn lets_out(&mut self, frame: &Frame<'_>) -> bool {
        let Some(gate) = &mut self.gate else { return true };
        let (packet, count, bytes) = match frame {
            Frame::Packet(packet) => (*packet, 1, packet.len()),
            Frame::Segments(segments) => (segments.first(), segments.count(), segments.bytes()),
        };
        let Err(refusal) = gate.egress(packet, count, bytes) else { return true };
        if let Some(refusal) = refusal {
            self.write(&refusal);
        }
        false
    }

    fn write(&mut self, packet: &[u8]) {
        let Self { tun, coalescer, link_drops, .. } = self;
        coalescer.push(packet, |header, packet| *link_drops += write(tun, header, packet));
    }

    /// Hands on what was held back to be put together.
    fn flush_link(&mut self) {
        let Self { tun, coalescer, link_drops, .. } = self;
        coalescer.flush(|header, packet| *link_drops += write(tun, header, packet));
    }
}

/// Returns how many packets the link did not take.
fn write(tun: &mut Tun, header: Header, packet: &[u8]) -> u64 {
    if tun.write(header, packet).is_ok() { 0 } else { header.count(packet.len()) }
}

impl Output for Io {
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        match path {
            Path::Direct { remote, local } => self.udp.push(Way { remote, local }, len, write),
            Path::Relay { relay, peer } => {
                self.relays.send(relay, &peer, len, write);
            }
        }
    }

    fn deliver(&mut self, packet: &[u8]) {
        if self.gate.as_mut().is_none_or(|gate| gate.ingress(packet)) {
            self.write(packet);
        }
    }
}

impl Engine {
    pub(super) fn new(
        interface: Interface,
        tun: Tun,
        udp: Udp,
        gate: Option<Gate>,
        ways: Option<Ways>,
        commands: Receiver<Command>,
        wake: Arc<EventFd>,
    ) -> Self {
        let coalescer = Coalescer::new(tun.takes_datagrams());
        let (clock, relays) = (Clock::new(), Relays::default());
        let io = Io { tun, udp, relays, gate, coalescer, malformed: 0, link_drops: 0 };
        Self { clock, interface, ways, io, commands, wake, buffer: vec![0; Header::LEN + MAX_PACKET] }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the link is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            let now = self.clock.now();
            if self.clock.jumped() {
                tracing::warn!("the clock jumped: this machine may be a copy, so every session begins anew");
                self.interface.forget_sessions(now, &mut self.io);
            }
            if ready.command && !self.handle_commands(now) {
                return Ok(());
            }
            let batch = self.handle_batch(&ready, now);
            if let Some(gate) = &mut self.io.gate {
                gate.tell();
            }
            batch?;
        }
    }

    fn handle_batch(&mut self, ready: &Ready, now: Instant) -> io::Result<()> {
        if let Some(gate) = &mut self.io.gate {
            gate.begin();
        }
        if ready.datagram {
            self.handle_datagrams(now);
            self.io.flush_link();
        }
        if ready.relay {
            self.handle_relays(now);
            self.io.flush_link();
        }
        let read = if ready.packet { self.handle_packets(now) } else { Ok(()) };
        self.interface.handle_timeout(now, &mut self.io);
        self.find_paths(now);
        self.io.flush_link();
        self.io.udp.flush();
        read
    }

    fn wait(&self) -> io::Result<Ready> {
        let ways = self.ways.as_ref().and_then(Ways::poll_timeout);
        let next = self.interface.poll_timeout().into_iter().chain(ways).min();
        let timeout = next.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(self.clock.now());
            // Rounded up, so as not to wake just before the time.
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        let Io { udp, tun, relays, .. } = &self.io;
        let mut fds: [_; 3 + MAX_SERVERS] = array::from_fn(|index| {
            let fd = match index {
                0 => self.wake.as_fd(),
                1 => udp.as_fd(),
                2 => tun.as_fd(),
                // Those without a relay are not polled.
                _ => relays.bell(index - 3).unwrap_or(self.wake.as_fd()),
            };
            PollFd::new(fd, PollFlags::POLLIN)
        });
        let fds = &mut fds[..3 + relays.len()];
        match poll(fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Errors and hang-ups count as ready: the read that follows tells what it is.
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(Ready {
            command: ready(&fds[0]),
            datagram: ready(&fds[1]),
            packet: ready(&fds[2]),
            relay: fds[3..].iter().any(ready),
        })
    }

    fn handle_datagrams(&mut self, now: Instant) {
        let mut bytes = 0;
        for _ in 0..READS {
            // Errors other than "nothing there" are of single datagrams, such as an ICMP error for one sent earlier.
            let Ok(run) = self.io.udp.receive(&mut self.buffer) else { break };
            let from = Path::Direct { remote: run.from.remote, local: run.from.local };
            for datagram in self.buffer[..run.len].chunks_mut(run.segment) {
                let kind = if self.ways.is_some() { mux::classify(datagram) } else { Kind::WireGuard };
                match (kind, &mut self.ways) {
                    (Kind::WireGuard, ways) => {
                        let peer = self.interface.handle_datagram(from, datagram, now, &mut self.io);
                        if let (Some(peer), Some(ways)) = (peer, ways) {
                            ways.saw(peer, from, now);
                        }
                    }
                    (Kind::Stun, Some(ways)) => {
                        let useful = ways.handle_stun(run.from.local, run.from.remote, datagram, now);
                        self.io.malformed += u64::from(!useful);
                    }
                    _ => self.io.malformed += 1,
                }
            }
            bytes += run.len;
            if bytes >= BATCH {
                break;
            }
        }
    }

    fn handle_relays(&mut self, now: Instant) {
        let Some(ways) = &mut self.ways else { return };
        for index in 0..self.io.relays.len() {
            for _ in 0..READS {
                let Some((relay, peer, len)) = self.io.relays.receive(index, &mut self.buffer) else { break };
                let from = Path::Relay { relay, peer };
                if let Some(peer) =
                    self.interface.handle_datagram(from, &mut self.buffer[..len], now, &mut self.io)
                {
                    ways.saw(peer, from, now);
                }
            }
        }
        // Only now, with the bells silent: a state that changes from here on rings again.
        ways.handle_relays(&mut self.io.relays, now);
    }

    fn find_paths(&mut self, now: Instant) {
        let Self { interface, ways: Some(ways), io, .. } = self else { return };
        let mut chosen = Vec::new();
        let check = |remote, local, bytes: &[u8]| {
            let way = Way { remote, local: Some(local) };
            io.udp.push(way, bytes.len(), |room| room.copy_from_slice(bytes));
        };
        ways.handle_timeout(now, check, |peer, path| chosen.push((*peer, path)));
        for (peer, path) in chosen {
            interface.set_path(&peer, path, now, io);
        }
    }

    fn handle_packets(&mut self, now: Instant) -> io::Result<()> {
        let mut bytes = 0;
        for _ in 0..READS {
            let len = match self.io.tun.read(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(mut frame) = Frame::read(&mut self.buffer[..len]) else {
                self.io.malformed += 1;
                continue;
            };
            if self.io.lets_out(&frame) {
                let peer = match &mut frame {
                    Frame::Packet(packet) => {
                        self.interface.handle_packets(&mut Single::new(packet), now, &mut self.io)
                    }
                    Frame::Segments(segments) => self.interface.handle_packets(segments, now, &mut self.io),
                };
                if let (Some(peer), Some(ways)) = (peer, &mut self.ways) {
                    ways.wants(peer, now);
                }
            }
            bytes += len;
            if bytes >= BATCH {
                break;
            }
        }
        Ok(())
    }

    /// False when it is time to stop. An answer nobody waits for any more is no error.
    fn handle_commands(&mut self, now: Instant) -> bool {
        // Reading resets the counter; that it is zero already is no error either.
        let _ = self.wake.read();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::SetPeers(peers, done) => {
                    self.interface.set_peers(&peers, now, &mut self.io);
                    if let Some(ways) = &mut self.ways {
                        ways.set_peers(&peers, now);
                    }
                    let _ = done.send(());
                }
                Command::Peers(reply) => drop(reply.send(self.peers())),
                Command::Drops(reply) => drop(reply.send(self.drops())),
                // Without a gate nobody has a handle to ask with; the sender that is dropped says so.
                Command::Apply(program, old) => {
                    if let Some(gate) = &mut self.io.gate {
                        let _ = old.send(gate.switch(*program));
                    }
                }
                Command::Pin(pins, done) => {
                    if let Some(gate) = &mut self.io.gate {
                        gate.pin(&pins);
                        let _ = done.send(());
                    }
                }
                Command::Counters(reply) => {
                    if let Some(gate) = &self.io.gate {
                        let _ = reply.send(gate.counters());
                    }
                }
                Command::Relays(reply) => drop(reply.send(self.io.relays.status())),
                // Without path finding nobody has a handle to ask with.
                Command::SetLocal(addresses) => {
                    self.ways.iter_mut().for_each(|ways| ways.set_local(&addresses, now));
                }
                Command::SetServers(servers) => {
                    if let Some(ways) = &mut self.ways {
                        ways.set_servers(*servers, &mut self.io.relays, now);
                    }
                }
                Command::Signal(from, signal) => {
                    if let Some(ways) = &mut self.ways {
                        ways.handle_signal(&from, *signal, now);
                    }
                }
                Command::Stop => return false,
            }
        }
        true
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

    fn drops(&self) -> Drops {
        let drops = self.interface.drops();
        Drops {
            malformed: drops.malformed + self.io.malformed,
            link: self.io.link_drops,
            underlay: self.io.udp.failed(),
            ..drops
        }
    }
}

/// What [`Engine::wait`] found.
struct Ready {
    command: bool,
    datagram: bool,
    packet: bool,
    relay: bool,
}
