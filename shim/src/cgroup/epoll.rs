//! A descriptor of the kernel's among those that the runtime waits for, by epoll(7).
#![allow(unsafe_code)] // tokio cannot see that a descriptor stays open

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Inside a runtime.
pub(super) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `fd` is open and owned; what it is moved into hands it out by reference only, so that nobody closes or replaces it before.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
