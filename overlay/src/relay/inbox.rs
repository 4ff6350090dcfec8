//! Datagrams from the relay that wait for the packet thread.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use lattice_wire::{WgPublicKey, lrp};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Bytes that wait, at most: 4 ms of 1 Gbit/s.
const LIMIT: usize = 512 << 10;
/// What a datagram costs beyond its bytes.
const OVERHEAD: usize = 96;
/// A datagram keeps the whole buffer in which it came with others; when more than this waits, it is copied.
const SHARED: usize = 32 << 10;

/// A bounded queue with a descriptor that is readable while something waits.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    bell: EventFd,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    datagrams: VecDeque<(WgPublicKey, Bytes)>,
    bytes: usize,
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { waiting: Mutex::default(), bell, dropped: AtomicU64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A datagram from `peer`, dropped and counted when there is no room.
    pub(super) fn push(&self, peer: WgPublicKey, datagram: Bytes) {
        let mut waiting = self.lock();
        let bytes = waiting.bytes + datagram.len() + OVERHEAD;
        if bytes > LIMIT || datagram.len() > lrp::MAX_DATAGRAM {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let datagram = if waiting.bytes > SHARED { Bytes::copy_from_slice(&datagram) } else { datagram };
        let was_empty = waiting.datagrams.is_empty();
        waiting.bytes = bytes;
        waiting.datagrams.push_back((peer, datagram));
        if was_empty {
            self.ring();
        }
    }

    /// Makes the bell readable once, though nothing waits.
    pub(super) fn ring(&self) {
        // It fails only when the counter is full, and then the descriptor is readable anyhow.
        let _ = self.bell.write(1);
    }

    /// Copies the oldest datagram into `buffer`; one that does not fit is dropped and counted.
    pub(super) fn pop(&self, buffer: &mut [u8]) -> Option<(WgPublicKey, usize)> {
        let mut waiting = self.lock();
        loop {
            let Some((peer, datagram)) = waiting.datagrams.pop_front() else {
                // Under the lock: nothing can have come in between.
                let _ = self.bell.read();
                return None;
            };
            waiting.bytes -= datagram.len() + OVERHEAD;
            match buffer.get_mut(..datagram.len()) {
                Some(place) => {
                    place.copy_from_slice(&datagram);
                    return Some((peer, datagram.len()));
                }
                None => self.dropped.fetch_add(1, Ordering::Relaxed),
            };
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn rings(inbox: &Inbox) -> bool {
        let mut fds = [PollFd::new(inbox.bell(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn rings_while_something_waits_and_holds_no_more_than_it_may() {
        let (inbox, peer) = (Inbox::new().unwrap(), WgPublicKey([1; 32]));
        let mut buffer = [0; 2048];
        assert!(!rings(&inbox) && inbox.pop(&mut buffer).is_none());
        for n in 0..1000u16 {
            inbox.push(peer, Bytes::from(vec![n as u8; 1312]));
        }
        let held = LIMIT / (1312 + OVERHEAD);
        assert_eq!(inbox.dropped(), 1000 - held as u64);
        for n in 0..held {
            assert!(rings(&inbox));
            assert_eq!(inbox.pop(&mut buffer), Some((peer, 1312)));
            assert_eq!(buffer[0], n as u8);
        }
        assert!(inbox.pop(&mut buffer).is_none() && !rings(&inbox));
        inbox.push(peer, Bytes::from(vec![0; 1400]));
        assert!(rings(&inbox));
        assert!(inbox.pop(&mut [0; 1399]).is_none(), "does not fit");
        assert_eq!(inbox.dropped(), 1001 - held as u64);
    }
}
