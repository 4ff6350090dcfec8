//! The thread of a device with a TUN link: waits for packets, datagrams, time and commands, and runs each batch to its end. It
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

use std::{array, io, os::fd::AsFd, time::Instant};

use lattice_wire::reach::MAX_SERVERS;
use lattice_wireguard::{Packets as _, Single};
use nix::poll::{PollFd, PollFlags};

use super::{
    core::{BATCH, Core, Inside, Outside, READS, RELAYED_MTU},
    loopback::{Covers, LoopbackPorts},
    ready::{self, is_ready},
    tun::Tun,
    vnet::{Coalescer, Frame, Header, NEEDS_CHECKSUM},
};
use crate::gateway::{Leads, Tap};

/// The thread's state.
pub(super) struct Engine {
    core: Core,
    link: Link,
    /// After the core, whose commands the gateway may wait for.
    tap: Option<Tap>,
}

/// The TUN link, and what is held back to be put together for it.
struct Link {
    tun: Tun,
    coalescer: Coalescer,
    loopback: Option<LoopbackPorts>,
    drops: u64,
}

impl Link {
    fn write(&mut self, packet: &mut [u8]) {
        let Self { tun, coalescer, loopback, drops } = self;
        if let Some(loopback) = loopback {
            loopback.inward(packet);
        }
        coalescer.push(packet, |header, packet| *drops += write(tun, header, packet));
    }

    /// Not held back: whoever is refused is told at once.
    fn refuse(&mut self, refusal: &[u8]) {
        let mut refusal = refusal.to_vec();
        if let Some(loopback) = &self.loopback {
            loopback.inward(&mut refusal);
        }
        self.drops += write(&mut self.tun, Header::default(), &refusal);
    }

    /// Reads what the kernel hands over next.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.tun.read(buffer)?;
        if let Some(loopback) = &self.loopback
            && let Some((header, packet)) = buffer[..len].split_at_mut_checked(Header::LEN)
        {
            let is_partial = header[0] & NEEDS_CHECKSUM != 0;
            loopback.outward(packet, if is_partial { Covers::PseudoHeader } else { Covers::All });
        }
        Ok(len)
    }

    /// Hands on what was held back.
    fn flush(&mut self) {
        let Self { tun, coalescer, drops, .. } = self;
        coalescer.flush(|header, packet| *drops += write(tun, header, packet));
    }
}

impl Inside for Link {
    fn take(&mut self, packet: &mut [u8]) {
        self.write(packet);
    }
}

/// Returns how many packets the link did not take.
fn write(tun: &mut Tun, header: Header, packet: &[u8]) -> u64 {
    if tun.write(header, packet).is_ok() { 0 } else { header.count(packet.len()) }
}

/// Whether the policy lets out what one read of the link yielded. The sender of what it does not is told at once.
fn lets_out(outside: &mut Outside, link: &mut Link, frame: &Frame<'_>) -> bool {
    let Some(gate) = &mut outside.gate else { return true };
    let (packet, count, bytes) = match frame {
        Frame::Packet(packet) => (*packet, 1, packet.len()),
        Frame::Segments(segments) => (segments.first(), segments.count(), segments.bytes()),
    };
    let Err(denial) = gate.egress(packet, count, bytes) else { return true };
    if let Some(refusal) = denial.refusal {
        link.refuse(&refusal);
    }
    false
}

/// The only packet of a frame, or the first.
fn first<'a>(frame: &'a Frame<'_>) -> &'a [u8] {
    match frame {
        Frame::Packet(packet) => packet,
        Frame::Segments(segments) => segments.first(),
    }
}

impl Engine {
    pub(super) fn new(core: Core, tun: Tun, tap: Option<Tap>, loopback: Option<LoopbackPorts>) -> Self {
        let coalescer = Coalescer::new(tun.takes_datagrams());
        Self { core, link: Link { tun, coalescer, loopback, drops: 0 }, tap }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the link is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            let now = self.core.begin(&mut self.link);
            if ready.command {
                let dropped = self.link.drops;
                self.core.outside.beyond = self.tap.as_ref().map_or(0, Tap::lost);
                let done = self.core.handle_commands(&mut self.link, dropped, now);
                if done.stop {
                    return Ok(());
                }
                if let Some(tap) = self.tap.as_ref().filter(|_| done.policy) {
                    tap.policy_has_changed();
                }
            }
            let batch = self.handle_batch(&ready, now);
            if let Some(gate) = &mut self.core.outside.gate {
                gate.tell();
            }
            batch?;
        }
    }

    fn handle_batch(&mut self, ready: &Ready, now: Instant) -> io::Result<()> {
        if ready.datagram {
            self.core.handle_datagrams(&mut self.link, now);
            self.link.flush();
        }
        if ready.relay {
            self.core.handle_relays(&mut self.link, now);
            self.link.flush();
        }
        if ready.outside
            && let Some(tap) = &mut self.tap
        {
            let (outside, link) = (&mut self.core.outside, &mut self.link);
            tap.drain(|packet| {
                if outside.gate.as_mut().is_none_or(|gate| gate.ingress(packet)) {
                    link.write(packet);
                }
            })?;
            link.flush();
        }
        let read = if ready.packet { self.handle_packets(now) } else { Ok(()) };
        self.tap.iter_mut().for_each(Tap::finish);
        self.core.handle_timeout(&mut self.link, now);
        self.link.flush();
        self.core.outside.udp.flush();
        read
    }

    fn wait(&self) -> io::Result<Ready> {
        let left = self.core.poll_timeout().map(|at| at.saturating_duration_since(self.core.clock.now()));
        let (Outside { udp, relays, .. }, wake) = (&self.core.outside, self.core.wake());
        let mut fds: [_; 4 + MAX_SERVERS] = array::from_fn(|index| {
            let fd = match index {
                0 => wake.as_fd(),
                1 => udp.as_fd(),
                2 => self.link.tun.as_fd(),
                // Without a gateway, nothing more.
                3 => self.tap.as_ref().map_or(wake.as_fd(), AsFd::as_fd),
                // Those without a relay are not polled.
                _ => relays.bell(index - 4).unwrap_or(wake.as_fd()),
            };
            PollFd::new(fd, PollFlags::POLLIN)
        });
        let fds = &mut fds[..4 + relays.len()];
        ready::wait(fds, left)?;
        Ok(Ready {
            command: is_ready(&fds[0]),
            datagram: is_ready(&fds[1]),
            packet: is_ready(&fds[2]),
            outside: is_ready(&fds[3]),
            relay: fds[4..].iter().any(is_ready),
        })
    }

    fn handle_packets(&mut self, now: Instant) -> io::Result<()> {
        let mut bytes = 0;
        // Out of the core's hands, which need not look at it while it is cut.
        let mut buffer = std::mem::take(&mut self.core.buffer);
        let mut result = Ok(());
        for _ in 0..READS {
            let len = match self.link.read(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            let Some(mut frame) = Frame::read(&mut buffer[..len]) else {
                self.core.outside.malformed += 1;
                continue;
            };
            if lets_out(&mut self.core.outside, &mut self.link, &frame) {
                let leads = |tap: &Tap| tap.leads(first(&frame), &self.core.interface);
                match (self.tap.as_ref().map_or(Leads::Overlay, leads), &mut frame) {
                    (Leads::Overlay, Frame::Packet(packet)) => match self.core.cut(packet) {
                        Some(mut cut) => self.core.seal(&mut cut, &mut self.link, now),
                        None => self.core.seal(&mut Single::new(packet), &mut self.link, now),
                    },
                    (Leads::Overlay, Frame::Segments(segments)) => {
                        if self.core.is_relayed(segments.head()) {
                            segments.cut_to(RELAYED_MTU);
                        }
                        self.core.seal(segments, &mut self.link, now);
                    }
                    (Leads::Outside, frame) => self.tap.iter_mut().for_each(|tap| tap.take(frame)),
                    (Leads::Nowhere, frame) => {
                        let gate = self.core.outside.gate.as_ref();
                        if let Some(refusal) = gate.and_then(|gate| gate.refusal(first(frame))) {
                            self.link.refuse(&refusal);
                        }
                    }
                }
            }
            bytes += len;
            if bytes >= BATCH {
                break;
            }
        }
        self.core.buffer = buffer;
        result
    }
}

/// What [`Engine::wait`] found.
struct Ready {
    command: bool,
    datagram: bool,
    packet: bool,
    outside: bool,
    relay: bool,
}
