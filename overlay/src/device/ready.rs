//! Waiting of a device's thread (`poll(2)`), which both backends do alike.

use std::{io, time::Duration};

use nix::{
    errno::Errno,
    poll::{PollFd, PollTimeout, poll},
};

/// Waits until one of `fds` is ready or `left` is over; for ever without that.
///
/// # Errors
/// What the kernel says. A signal is none.
pub(super) fn wait(fds: &mut [PollFd<'_>], left: Option<Duration>) -> io::Result<()> {
    // Rounded up, so as not to wake just before the time.
    let timeout = left.map_or(PollTimeout::NONE, |left| {
        PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    });
    match poll(fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the last [`wait`] found it so. Errors and hang-ups count: the read that follows tells what it is.
pub(super) fn is_ready(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| !events.is_empty())
}
