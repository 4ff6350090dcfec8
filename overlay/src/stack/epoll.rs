//! Descriptors that the runtime watches for us (`epoll(7)`).
#![allow(unsafe_code)] // AsyncFd takes nobody's word for it that a descriptor stays open.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    task::Context,
};

use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor that is watched, by a copy of it: whoever it is of may close it.
#[derive(Debug)]
pub(crate) struct Watched {
    fd: AsyncFd<OwnedFd>,
    interest: Interest,
}

impl Watched {
    /// Watches `fd` for there being something to read.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn readable(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Self::new(fd, Interest::READABLE)
    }

    /// Watches `fd` for room to write.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn writable(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Self::new(fd, Interest::WRITABLE)
    }

    fn new(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Self> {
        let fd = fd.try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is open for as long as it lives, it is the same descriptor all the while, and nobody can replace it in there.
        let fd = unsafe { AsyncFd::register_with_interest(fd, interest) }?;
        Ok(Self { fd, interest })
    }

    /// Whether it is ready. Otherwise the task of `context` is woken when it is.
    pub(crate) fn is_ready(&self, context: &mut Context<'_>) -> bool {
        if self.interest == Interest::WRITABLE {
            self.fd.poll_write_ready(context).is_ready()
        } else {
            self.fd.poll_read_ready(context).is_ready()
        }
    }

    /// Waits anew for a descriptor that was used until it was not ready. Nothing is missed: only this thread asks the kernel what is ready,
    /// and not meanwhile.
    pub(crate) fn clear(&self) {
        let _blocks: io::Result<()> =
            self.fd.try_io(self.interest, |_| Err(io::ErrorKind::WouldBlock.into()));
    }
}
