//! What the thread waits for.

use std::{array, io, os::fd::AsFd};

use lattice_wire::reach::MAX_SERVERS;
use nix::poll::{PollFd, PollFlags};

use super::Engine;
use crate::device::{
    ready::{self, is_ready},
    ways::Ways,
};

/// Descriptors before those of the relays.
const OWN: usize = 4;

/// What there is to do, besides what time asks for.
pub(super) struct Ready {
    pub(super) command: bool,
    pub(super) home: bool,
    pub(super) stun: bool,
    pub(super) relay: bool,
}

impl Engine {
    /// Waits until there is something to do.
    pub(super) fn wait(&self) -> io::Result<Ready> {
        let ways = self.ways.as_ref().and_then(Ways::poll_timeout);
        let due = [ways, self.peers.poll_timeout(), self.look_at()].into_iter().flatten().min();
        let left = due.map(|at| at.saturating_duration_since(self.clock.now()));
        let raw = self.raw.fds();
        let mut fds: [_; OWN + MAX_SERVERS] = array::from_fn(|index| {
            let fd = match index {
                0 => self.wake.as_fd(),
                1 => self.loopback.as_fd(),
                2 | 3 => raw.map_or(self.wake.as_fd(), |raw| raw[index - 2]),
                // Those without a relay are not polled.
                _ => self.relays.bell(index - OWN).unwrap_or(self.wake.as_fd()),
            };
            PollFd::new(fd, PollFlags::POLLIN)
        });
        let fds = &mut fds[..OWN + self.relays.len()];
        ready::wait(fds, left)?;
        Ok(Ready {
            command: is_ready(&fds[0]),
            home: is_ready(&fds[1]),
            stun: raw.is_some() && fds[2..OWN].iter().any(is_ready),
            relay: fds[OWN..].iter().any(is_ready),
        })
    }
}
