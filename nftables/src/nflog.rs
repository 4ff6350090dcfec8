//! The kernel's log of packets (NFLOG, `linux/netfilter/nfnetlink_log.h`): a netlink socket that is bound to one group of
//! one network namespace.

mod message;
mod packet;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, send, setsockopt,
        socket, sockopt,
    },
};

pub(crate) use message::{Logged, each};
pub(crate) use packet::ends;

/// What the kernel holds for a reader that is late, in bytes. More is lost, and counted.
const RECEIVE_BUFFER: usize = 1 << 20;

/// How long the kernel gathers records into one message, in hundredths of a second, and how many it gathers at most.
const GATHER: u32 = 1;
const GATHER_MOST: u32 = 32;

/// Longest message. The kernel gathers at most a page or two of them.
const MESSAGE: usize = 32 << 10;

/// One reader of one group.
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the **caller's** network namespace and binds it to `group`.
    pub(crate) fn bind(group: u16) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        // Past the limit of net.core.rmem_max, which a user namespace may not do.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let mut socket = Self { fd, buffer: vec![0; MESSAGE] };
        for request in message::requests(group, GATHER, GATHER_MOST) {
            send(socket.fd.as_raw_fd(), &request, nix::sys::socket::MsgFlags::empty())?;
            let answer = socket.receive()?;
            message::acknowledged(answer)?;
        }
        nix::fcntl::fcntl(&socket.fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(socket)
    }

    /// The next message of the kernel; an error of kind `WouldBlock` when there is none.
    pub(crate) fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut self.buffer) {
                // Any process of the namespace can send to the socket; only the kernel is port 0.
                Ok((length, Some(from))) if from.pid() == 0 => {
                    return Ok(self.buffer.get(..length).unwrap_or_default());
                }
                Ok(_) | Err(Errno::EINTR) => {}
                // Messages were lost. Their records are missing in the sequence.
                Err(Errno::ENOBUFS) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
