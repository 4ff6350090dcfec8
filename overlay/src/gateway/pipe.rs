//! Packets between the two threads.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::stack::packets::Packets;

/// One way. What waits in it is bounded, and what finds no room is dropped.
#[derive(Debug)]
pub(super) struct Pipe {
    packets: Mutex<Packets>,
    /// Packets that found no room, of those that were taken out.
    lost: AtomicU64,
    bell: EventFd,
}

/// Both ways, and what the threads tell each other otherwise.
#[derive(Debug)]
pub(super) struct Pipes {
    /// From the link to the gateway.
    pub(super) out: Pipe,
    /// To the link.
    pub(super) back: Pipe,
    /// There is another policy than when the gateway looked last.
    pub(super) has_changed: AtomicBool,
    /// The gateway has more to send than there was room for.
    pub(super) waits: AtomicBool,
    /// Packets that the gateway had no use or no room for.
    pub(super) lost: AtomicU64,
    /// One of the two has ended.
    has_ended: AtomicBool,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { packets: Mutex::default(), lost: AtomicU64::new(0), bell })
    }

    /// What waits in it.
    pub(super) fn packets(&self) -> MutexGuard<'_, Packets> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all out; `spare` must be empty, and is what is filled next.
    pub(super) fn take(&self, spare: &mut Packets) {
        std::mem::swap(&mut *self.packets(), spare);
        self.lost.fetch_add(spare.take_lost(), Ordering::Relaxed);
    }

    /// Wakes the other end.
    pub(super) fn ring(&self) {
        // It fails only when the counter is full, and then the descriptor is readable anyhow.
        let _ = self.bell.write(1);
    }

    /// To be called before taking: what comes meanwhile rings anew.
    pub(super) fn silence(&self) {
        // That it has not rung is no error.
        let _ = self.bell.read();
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Pipes {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            out: Pipe::new()?,
            back: Pipe::new()?,
            has_changed: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
        }))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Packets that were lost so far, on either way or at its end.
    pub(super) fn lost(&self) -> u64 {
        let all = [&self.out.lost, &self.back.lost, &self.lost];
        all.into_iter().map(|lost| lost.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.out.ring();
        self.back.ring();
    }
}

/// Tells the other end, also when this one panics.
pub(super) struct EndOnDrop(pub(super) Arc<Pipes>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}
