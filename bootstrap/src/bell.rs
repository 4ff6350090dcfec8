//! Tells a thread that waits in `poll(2)` to end, at once.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};

/// Rung once, it stays rung.
#[derive(Debug, Clone)]
pub(crate) struct Bell(Arc<EventFd>);

impl Bell {
    /// A silent bell.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_flags(flags)?)))
    }

    /// Wakes whoever waits, now and later.
    pub(crate) fn ring(&self) {
        // It can only fail when the counter is full, and then it is rung.
        let _ = self.0.write(1);
    }

    /// Waits until `other` is readable, the bell is rung or `timeout` is over. True when it is rung.
    pub(crate) fn wait(&self, other: BorrowedFd<'_>, timeout: PollTimeout) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN), PollFd::new(other, PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) => Ok(fds[0].any().unwrap_or(false)),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
