//! The device's end of a gateway.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use ipnet::IpNet;
use lattice_netstack::echo;
use lattice_wireguard::{Interface, Packets as _};

use super::pipe::Pipes;
use crate::{
    device::vnet::{Frame, TCP, UDP},
    stack::packets::Packets,
};

/// Where a packet leads that may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leads {
    /// To a peer, or to where one could be.
    Overlay,
    /// To the gateway.
    Outside,
    /// Out of the overlay, by a protocol that no socket of a user speaks.
    Nowhere,
}

/// Gives a gateway what leaves the overlay, and takes what comes back. Dropping it ends the gateway and waits for its thread.
pub(crate) struct Tap {
    pipes: Arc<Pipes>,
    overlay: Vec<IpNet>,
    spare: Packets,
    has_taken: bool,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    pub(super) fn new(pipes: Arc<Pipes>, overlay: Vec<IpNet>, thread: JoinHandle<()>) -> Self {
        Self { pipes, overlay, spare: Packets::default(), has_taken: false, thread: Some(thread) }
    }

    /// Where `packet` leads, which the policy lets out. What of the overlay has no peer stays the overlay's.
    pub(crate) fn leads(&self, packet: &[u8], interface: &Interface) -> Leads {
        let Some((destination, protocol)) = destination(packet) else { return Leads::Overlay };
        if self.overlay.iter().any(|net| net.contains(&destination)) || interface.leads_to(destination) {
            return Leads::Overlay;
        }
        let is_carried = matches!(protocol, TCP | UDP) || echo::is_request(packet);
        if is_carried { Leads::Outside } else { Leads::Nowhere }
    }

    /// Packets that the gateway has lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.pipes.lost()
    }

    /// Hands what one read of the link yielded to the gateway.
    pub(crate) fn take(&mut self, frame: &mut Frame<'_>) {
        self.has_taken = true;
        let mut packets = self.pipes.out.packets();
        match frame {
            Frame::Packet(packet) => packets.push(packet.len(), |room| room.copy_from_slice(packet)),
            Frame::Segments(segments) => {
                while let Some(len) = segments.next_len() {
                    let mut is_written = false;
                    packets.push(len, |room| {
                        segments.write(room);
                        is_written = true;
                    });
                    if !is_written {
                        return;
                    }
                }
            }
        }
    }

    /// Wakes the gateway for all that it was given since.
    pub(crate) fn finish(&mut self) {
        if std::mem::take(&mut self.has_taken) {
            self.pipes.out.ring();
        }
    }

    /// Has the gateway ask anew about all its flows.
    pub(crate) fn policy_has_changed(&self) {
        // After what was let out by the policy of before, which the gateway finds when it sees this.
        self.pipes.has_changed.store(true, Ordering::Release);
        self.pipes.out.ring();
    }

    /// Hands over what comes back.
    ///
    /// # Errors
    /// When the gateway has ended.
    pub(crate) fn drain(&mut self, each: impl FnMut(&mut [u8])) -> io::Result<()> {
        let Self { pipes, spare, .. } = self;
        pipes.back.silence();
        pipes.back.take(spare);
        spare.drain(each);
        if pipes.waits.swap(false, Ordering::AcqRel) {
            pipes.out.ring();
        }
        if pipes.has_ended() {
            return Err(io::Error::other("what leads out of the overlay has ended"));
        }
        Ok(())
    }
}

/// What becomes readable when something comes back.
impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipes.back.as_fd()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.pipes.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the way out of the overlay panicked");
        }
    }
}

/// Where to, and by which protocol. What follows extension headers is none that a user's sockets carry.
fn destination(packet: &[u8]) -> Option<(IpAddr, u8)> {
    match packet.first()? >> 4 {
        4 => Some((IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?), packet[9])),
        6 => Some((IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?), packet[6])),
        _ => None,
    }
}
