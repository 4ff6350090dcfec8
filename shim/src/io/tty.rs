//! The master side of a terminal (`pty(7)`), and its size (`TIOCSWINSZ(2const)`).
#![allow(unsafe_code)] // ioctl; AsyncFd::register

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::Winsize,
    unistd::{isatty, read, write},
};
use tokio::io::{Interest, unix::AsyncFd};

nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, Winsize);

/// Never blocks. Closed when dropped: then the terminal hangs up.
#[derive(Debug)]
pub(super) struct Tty(AsyncFd<OwnedFd>);

impl Tty {
    /// Takes the master side. Inside a runtime.
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        if !isatty(&master)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a terminal"));
        }
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: the descriptor is open, and the AsyncFd owns it: it stays the same and open until that is dropped.
        Ok(Self(unsafe { AsyncFd::register(master) }?))
    }

    /// Sets its size, in characters.
    pub(super) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open, and `size` lives over the call, which reads it only.
        unsafe { set_size(self.0.get_ref().as_raw_fd(), &raw const size) }?;
        Ok(())
    }

    /// Waits until there is something to read, or nobody will write any more.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Reads what is there: nothing once the other side has been closed (the kernel says EIO); `WouldBlock` before.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.try_io(Interest::READABLE, |fd| Ok(read(fd, buffer)?)) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            result => result,
        }
    }

    /// Writes all of `bytes`, as fast as they are taken.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.0.async_io(Interest::WRITABLE, |fd| Ok(write(fd, bytes)?)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}
