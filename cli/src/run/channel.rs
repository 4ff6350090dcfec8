//! What `lattice sandbox run` and its helper say to each other, as JSON, one message each.
//!
//! ```text
//!  run                                    helper
//!      ◄── Prepared, with descriptors ───   or Refused: then it ends      (with namespaces only)
//!      ─── Link ────────────────────────►
//!      ◄── Done ─────────────────────────   or Failed                     (with namespaces only)
//!      ─── Start ───────────────────────►
//!      ◄── Done ─────────────────────────   or Failed, or NotRun: then it ends
//!      ─── Signal ──────────────────────►   as often as there are any
//!      ◄── Ended, then closed ───────────   when the command has ended; without the first, the helper has
//! ```
//!
//! Either end may be closed at any time. When ours is, the helper ends, and the command with it.

use std::{
    ffi::OsString,
    io,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use lattice_overlay::userns::rights;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{Shutdown, shutdown},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What the helper is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Configure the link, and raise it.
    Link { addresses: Vec<IpAddr>, mtu: u16, loopback: Vec<u16> },
    /// Run the command.
    Start(Start),
    /// Give the command this signal.
    Signal(i32),
}

/// How the command is run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Start {
    /// Files and directories that are not for it (with namespaces only).
    pub(super) hidden: Vec<OsString>,
    /// Directories that it may write (with namespaces only), each with the device and inode that were found there.
    pub(super) writable: Vec<(OsString, (u64, u64))>,
    /// More of its environment.
    pub(super) environment: Vec<(String, String)>,
}

/// What the helper says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The link and the sockets of the resolver, UDP and TCP, come with it.
    Prepared,
    /// There can be no namespaces here, and why.
    Refused(String),
    Done,
    Failed(String),
    /// The command cannot be executed: why, and the exit code that says so.
    NotRun(String, u8),
    /// The command has ended, with this exit code.
    Ended(u8),
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    pub(super) fn new(end: OwnedFd) -> Self {
        Self(end)
    }

    pub(super) fn send(&self, message: &impl Serialize, with: &[OwnedFd]) -> io::Result<()> {
        let with: Vec<_> = with.iter().map(OwnedFd::as_fd).collect();
        rights::send(self.0.as_fd(), &serde_json::to_vec(message)?, &with)
    }

    /// Waits for the next message; `None` when the other end was closed.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some((text, with)) = rights::receive(self.0.as_fd())? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&text)?, with)))
    }

    /// Likewise, but no longer than `limit`.
    pub(super) fn receive_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut ready, limit) {
                Err(nix::errno::Errno::EINTR) => {}
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                done => break done.map(drop)?,
            }
        }
        self.receive()
    }

    /// Closes both ways, for whoever waits at either end.
    pub(super) fn close(&self) {
        let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(&self.0), Shutdown::Both);
    }
}

impl std::os::fd::AsFd for Channel {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
