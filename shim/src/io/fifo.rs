//! Opening FIFOs (`fifo(7)`) without waiting for the other side, and holding the side that is not ours.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::pipe2,
};
use tokio::net::unix::pipe::{Receiver, Sender};

/// The reading end of a FIFO, and a writer of ours: while that is open, other writers come and go without an end of file.
#[derive(Debug)]
pub(super) struct Input {
    /// Does not block.
    pub(super) reader: OwnedFd,
    /// To be closed to let the end be seen.
    pub(super) hold: OwnedFd,
}

/// Where output is written.
#[derive(Debug)]
pub(super) enum Output {
    /// A FIFO, and a reader of ours: while that is open, a writer without other readers waits, instead of failing.
    Fifo(Sender, OwnedFd),
    /// Written at its end.
    File(File),
    /// A pipe that a logger reads.
    Logger(Sender),
}

/// Opens the FIFO that containerd writes a standard input to.
pub(super) fn open_input(path: &Path) -> io::Result<Input> {
    let reader = open_now(OpenOptions::new().read(true), path)?;
    if !reader.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"));
    }
    let hold = open_now(OpenOptions::new().write(true), path)?;
    Ok(Input { reader: reader.into(), hold: hold.into() })
}

/// Opens the FIFO that containerd reads an output from, or the file that is there.
pub(super) fn open_output(path: &Path) -> io::Result<Output> {
    let reader = open_now(OpenOptions::new().read(true), path)?;
    let kind = reader.metadata()?.file_type();
    if kind.is_fifo() {
        let writer = open_now(OpenOptions::new().write(true), path)?;
        Ok(Output::Fifo(Sender::from_file(writer)?, reader.into()))
    } else if kind.is_file() {
        OpenOptions::new().append(true).open(path).map(Output::File)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a FIFO nor a file"))
    }
}

/// Opens a log file for appending; makes it and its directory when they are missing, with containerd's own modes.
pub(super) fn open_log(path: &Path) -> io::Result<Output> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut options = OpenOptions::new();
    let file = open_now(options.append(true).create(true).mode(0o644), path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    Ok(Output::File(file))
}

/// A pipe from us to a process, whose end blocks.
pub(super) fn pipe_to_process() -> io::Result<(OwnedFd, Sender)> {
    let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((theirs, Sender::from_owned_fd(ours)?))
}

/// A pipe from a process, whose end blocks, to us.
pub(super) fn pipe_from_process() -> io::Result<(OwnedFd, Receiver)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((theirs, Receiver::from_owned_fd(ours)?))
}

/// Whether `events` can be had of `fd` at this moment.
pub(super) fn is_ready(fd: impl AsFd, events: PollFlags) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    // A signal, such as that of a child's end, interrupts even a poll that does not wait.
    while let Err(error) = poll(&mut fds, PollTimeout::ZERO) {
        if error != Errno::EINTR {
            return Err(error.into());
        }
    }
    Ok(fds[0].revents().is_some_and(|seen| seen.intersects(events)))
}

/// Makes `fd` wait in read and write, as programs expect of what they inherit.
pub(super) fn make_blocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

fn open_now(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path)
}
