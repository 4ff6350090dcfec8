//! Messages with descriptors, over a socket of `SOCK_SEQPACKET` (`unix(7)`, `SCM_RIGHTS`).
#![allow(unsafe_code)] // received descriptors come as numbers

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
        sendmsg, socketpair,
    },
};

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;

/// The most descriptors with one message.
const MAX_DESCRIPTORS: usize = 4;

/// Two connected ends, neither inherited by what is executed.
///
/// # Errors
/// When there are no descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message, and copies of `descriptors`.
///
/// # Errors
/// `EPIPE` when the other end is closed.
pub fn send(socket: BorrowedFd<'_>, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &control };
    loop {
        let flags = MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(text)], control, flags, None) {
            Err(Errno::EINTR) => {}
            done => return Ok(done.map(drop)?),
        }
    }
}

/// Waits for one message; `None` when the other end was closed.
///
/// # Errors
/// When the message or its descriptors are more than fits, or the socket fails.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut text = vec![0; MAX_MESSAGE];
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let (length, flags, descriptors) = loop {
        let mut iov = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags) {
            Err(Errno::EINTR) => continue,
            // What it had not read yet was thrown away with the other end.
            Err(Errno::ECONNRESET) => return Ok(None),
            done => done?,
        };
        let mut descriptors = Vec::new();
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has just opened each of these for us, and nobody else knows them.
                descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        break (message.bytes, message.flags, descriptors);
    };
    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than any of ours"));
    }
    text.truncate(length);
    // No message of ours is empty.
    Ok((length > 0).then_some((text, descriptors)))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read as _, Seek as _, Write as _},
        os::fd::AsFd as _,
    };

    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_bring_their_descriptors() {
        let (left, right) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(b"in the file").unwrap();
        send(left.as_fd(), b"one", &[file.as_fd()]).unwrap();
        send(left.as_fd(), b"two", &[]).unwrap();
        let (text, mut descriptors) = receive(right.as_fd()).unwrap().unwrap();
        assert_eq!((&text[..], descriptors.len()), (&b"one"[..], 1));
        let (mut copy, mut read) = (File::from(descriptors.remove(0)), String::new());
        copy.rewind().unwrap();
        copy.read_to_string(&mut read).unwrap();
        assert_eq!(read, "in the file");
        assert_eq!(receive(right.as_fd()).unwrap().unwrap().0, b"two");
        drop(left);
        assert!(receive(right.as_fd()).unwrap().is_none());
        assert_eq!(send(right.as_fd(), b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let (left, right) = pair().unwrap();
        send(left.as_fd(), &vec![1; MAX_MESSAGE + 1], &[]).unwrap();
        assert!(receive(right.as_fd()).is_err());
    }
}
