//! Where runsc waits between the sandbox's birth and the agent's first instruction.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::Mode,
    unistd::mkfifo,
};

use crate::RunscError;

/// The FIFO that runsc takes for its pid file, at which it waits.
pub(super) struct Gate(PathBuf);

/// Its reading end: runsc goes on, and says who it is.
pub(super) struct Opened(File);

impl Gate {
    pub(super) fn make(path: &Path) -> Result<Self, RunscError> {
        let made = mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR);
        made.map_err(|errno| RunscError::io("create", path)(errno.into()))?;
        Ok(Self::at(path))
    }

    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Lets runsc go on as soon as it is there.
    pub(super) fn open(&self) -> io::Result<Opened> {
        // A plain open would wait for a writer.
        OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&self.0).map(Opened)
    }

    /// Lets [`Opened::wait`] end without a pid.
    pub(super) fn cancel(&self) {
        // Fails when nobody reads, which is just as well.
        drop(OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&self.0));
    }
}

impl Opened {
    /// The sandbox's process id, or `None` when it was cancelled or took too long.
    pub(super) fn wait(mut self, limit: Duration) -> io::Result<Option<u32>> {
        let deadline = Instant::now() + limit;
        let mut text = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut chunk = [0; 16];
            match self.0.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) if text.len() < chunk.len() => text.extend_from_slice(&chunk[..n]),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()))
    }
}
