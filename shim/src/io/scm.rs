//! Taking a descriptor from a Unix socket (`unix(7)`, `SCM_RIGHTS`).
#![allow(unsafe_code)] // received descriptors come as numbers

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

/// Receives one message, which must carry exactly one descriptor. Its text, a name by custom, is nothing to us.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut text = [0; 4096];
    let mut iov = [IoSliceMut::new(&mut text)];
    // Room for one too many, so that it is seen; the kernel closes what does not fit.
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let message =
        recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel has just opened each of these for us, and nobody else knows them.
            received.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    let is_cut = message.flags.contains(MsgFlags::MSG_CTRUNC);
    match received.pop() {
        Some(fd) if received.is_empty() && !is_cut => Ok(fd),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "one descriptor was to be sent")),
    }
}
