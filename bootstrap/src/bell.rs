//! Tells a thread that waits in `poll(2)` something, at once.

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

/// Rung once, it stays rung until it is silenced.
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

    /// Makes it silent again.
    pub(crate) fn silence(&self) {
        // It fails only when nobody has rung.
        let _ = self.0.read();
    }

    /// Waits until `other` is readable, the bell is rung or `timeout` is over. True when it is rung.
    pub(crate) fn wait(&self, other: BorrowedFd<'_>, timeout: PollTimeout) -> io::Result<bool> {
        self.wait_with([other], timeout).map(|(rung, _)| rung)
    }

    /// Waits until one of `others` is readable, the bell is rung or `timeout` is over. Says whether it is rung, and whether
    /// anything was.
    pub(crate) fn wait_with<const N: usize>(
        &self,
        others: [BorrowedFd<'_>; N],
        timeout: PollTimeout,
    ) -> io::Result<(bool, bool)> {
        let mut fds: Vec<PollFd<'_>> =
            [self.0.as_fd()].into_iter().chain(others).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok((fds[0].any().unwrap_or(false), ready > 0)),
            Err(Errno::EINTR) => Ok((false, true)),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
