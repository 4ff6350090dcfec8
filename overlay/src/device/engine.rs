//! The user-space device's thread: waits for packets, datagrams, time and commands, and runs each batch to its end. It
//! owns all state, so nothing is locked, and it reads the clock once per batch.
//!
//! Segmentation offload on the TUN device (`IFF_VNET_HDR`) has its place in [`super::tun`]: one read would then yield
//! several packets, as one receive of [`super::udp`] does.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, mpsc::Receiver},
    time::{Instant, SystemTime},
};

use lattice_wireguard::{Interface, Output, Path, Peer, Single};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};

use super::{
    Drops, PeerStatus,
    commands::Command,
    gate::Gate,
    tun::Tun,
    udp::{Udp, Way},
};

/// Reads in a row from one side before the other has its turn.
const BATCH: usize = 64;

/// The largest IP packet, and the largest run of datagrams.
const MAX_PACKET: usize = 65_535;

/// The thread's state.
pub(super) struct Engine {
    interface: Interface,
    io: Io,
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
    buffer: Vec<u8>,
}

struct Io {
    tun: Tun,
    udp: Udp,
    gate: Option<Gate>,
    link_drops: u64,
}

impl Io {
    /// Whether the policy lets a packet of the link out. The sender of one that it does not is told at once.
    fn lets_out(&mut self, packet: &[u8]) -> bool {
        match self.gate.as_mut().map_or(Ok(()), |gate| gate.egress(packet)) {
            Ok(()) => true,
            Err(refusal) => {
                if let Some(refusal) = refusal {
                    self.write(&refusal);
                }
                false
            }
        }
    }

    fn write(&mut self, packet: &[u8]) {
        if self.tun.write(packet).is_err() {
            self.link_drops += 1;
        }
    }
}

impl Output for Io {
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        if let Path::Direct { remote, local } = path {
            self.udp.push(Way { remote, local }, len, write);
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
        commands: Receiver<Command>,
        wake: Arc<EventFd>,
    ) -> Self {
        let io = Io { tun, udp, gate, link_drops: 0 };
        Self { interface, io, commands, wake, buffer: vec![0; MAX_PACKET] }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the link is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            let now = Instant::now();
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
        }
        if ready.packet {
            self.handle_packets(now)?;
        }
        self.interface.handle_timeout(now, &mut self.io);
        self.io.udp.flush();
        Ok(())
    }

    fn wait(&self) -> io::Result<Ready> {
        let timeout = self.interface.poll_timeout().map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now());
            // Rounded up, so as not to wake just before the time.
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.io.udp.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.io.tun.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Errors and hang-ups count as ready: the read that follows tells what it is.
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(Ready { command: ready(&fds[0]), datagram: ready(&fds[1]), packet: ready(&fds[2]) })
    }

    fn handle_datagrams(&mut self, now: Instant) {
        for _ in 0..BATCH {
            // Errors other than "nothing there" are of single datagrams, such as an ICMP error for one sent earlier.
            let Ok(run) = self.io.udp.receive(&mut self.buffer) else { break };
            let from = Path::Direct { remote: run.from.remote, local: run.from.local };
            for datagram in self.buffer[..run.len].chunks_mut(run.segment) {
                self.interface.handle_datagram(from, datagram, now, &mut self.io);
            }
        }
    }

    fn handle_packets(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.io.tun.read(&mut self.buffer) {
                Ok(len) => {
                    let packet = &self.buffer[..len];
                    if self.io.lets_out(packet) {
                        self.interface.handle_packets(&mut Single::new(packet), now, &mut self.io);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
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
                Command::Stop => return false,
            }
        }
        true
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let status = |peer: &Peer| PeerStatus {
            public_key: peer.public_key(),
            endpoint: peer.path().and_then(|path| path.remote()),
            last_handshake: peer
                .last_handshake()
                .and_then(|at| wall.checked_sub(now.saturating_duration_since(at))),
            rx_bytes: peer.rx_bytes(),
            tx_bytes: peer.tx_bytes(),
        };
        self.interface.peers().map(status).collect()
    }

    fn drops(&self) -> Drops {
        Drops { link: self.io.link_drops, underlay: self.io.udp.failed(), ..self.interface.drops() }
    }
}

/// What [`Engine::wait`] found.
struct Ready {
    command: bool,
    datagram: bool,
    packet: bool,
}
