//! STUN on the port that the kernel's WireGuard holds: raw sockets (`raw(7)`) beside it, one for each IP version.
//!
//! They receive copies of what comes to the port, of which a filter leaves STUN, and send as if from the port: connectivity checks have
//! to go the way that WireGuard's packets go, through the same mapping of each NAT. WireGuard itself drops what is not its own.
//!
//! The kernel copies each datagram of the namespace for each of them before it asks the filter, so they are there only while they are of use.
//!
//! WireGuard has the routes choose the address that it sends from. So nothing is sent from another one here: a path that was found that
//! way would be another path.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
        SockaddrIn6, SockaddrStorage, recvmsg, sendmsg, setsockopt, socket, sockopt,
    },
};

use super::{
    datagram,
    socket_filter::{self, Begins},
};
use crate::device::udp::{source_v4, source_v6};

/// The sockets, as far as they are open.
#[derive(Debug)]
pub(super) struct Raw {
    port: u16,
    sockets: Option<Sockets>,
    is_v6_next: bool,
    failed: u64,
}

#[derive(Debug)]
struct Sockets {
    v4: OwnedFd,
    /// `None` where the kernel has no IPv6.
    v6: Option<OwnedFd>,
}

/// A datagram, as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    pub(super) from: SocketAddr,
    /// Our address.
    pub(super) to: IpAddr,
    pub(super) content: &'a [u8],
}

impl Raw {
    /// For `port`; nothing is open yet. All the rest is to be called in the same network namespace.
    pub(super) fn new(port: u16) -> Self {
        Self { port, sockets: None, is_v6_next: false, failed: 0 }
    }

    /// Opens the sockets, if they are not.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.sockets().map(drop)
    }

    /// Closes them.
    pub(super) fn close(&mut self) {
        self.sockets = None;
    }

    fn sockets(&mut self) -> io::Result<&Sockets> {
        let sockets = match self.sockets.take() {
            Some(sockets) => sockets,
            None => Sockets::open(self.port)?,
        };
        Ok(self.sockets.insert(sockets))
    }

    /// The next datagram: of the two IP versions in turns, so that a flood by one does not keep the other from being heard. `WouldBlock`
    /// when there is none; what is not STUN for the port, as there may be from before the filter was attached, is `InvalidData`.
    pub(super) fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        let Some(sockets) = &self.sockets else { return Err(io::ErrorKind::WouldBlock.into()) };
        let mut message = sockets.receive(self.is_v6_next, buffer);
        self.is_v6_next = !self.is_v6_next;
        if message.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            message = sockets.receive(self.is_v6_next, buffer);
        }
        let (len, v6) = message?;
        let bytes = &buffer[..len];
        let received = match v6 {
            None => datagram::read_ipv4(bytes, self.port),
            Some((from, to)) => datagram::read(bytes, self.port)
                .map(|(port, content)| (SocketAddr::new(from.into(), port), to.into(), content)),
        };
        let (from, to, content) = received.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Received { from, to, content })
    }

    /// Sends a datagram from the port and, where `local` is given, from that address: not at all, and without a word, when routes would
    /// have WireGuard send from another one. What the kernel does not take is counted.
    pub(super) fn send(&mut self, local: Option<IpAddr>, to: SocketAddr, content: &[u8]) {
        let sent = Self::source(to).and_then(|source| match local {
            Some(local) if local != source => Ok(()),
            _ => self.send_from(source, to, content),
        });
        self.failed += u64::from(sent.is_err());
    }

    /// The address that routes choose for what goes to `to`.
    fn source(to: SocketAddr) -> io::Result<IpAddr> {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // To connect it sends nothing.
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    }

    fn send_from(&mut self, from: IpAddr, to: SocketAddr, content: &[u8]) -> io::Result<()> {
        let from = SocketAddr::new(from, self.port);
        let datagram = datagram::build(from, to, content).ok_or(io::ErrorKind::InvalidInput)?;
        let slices = [IoSlice::new(&datagram)];
        // On a raw socket, the port of an address means the protocol, or nothing.
        let target = SockaddrStorage::from(SocketAddr::new(to.ip(), 0));
        let flags = MsgFlags::MSG_DONTWAIT;
        let Sockets { v4, v6 } = self.sockets()?;
        match (from.ip(), v6) {
            (IpAddr::V4(from), _) => {
                let source = source_v4(from);
                let source = [ControlMessage::Ipv4PacketInfo(&source)];
                sendmsg(v4.as_raw_fd(), &slices, &source, flags, Some(&target))?;
            }
            (IpAddr::V6(_), Some(v6)) => {
                let source = source_v6(from.ip());
                let source = [ControlMessage::Ipv6PacketInfo(&source)];
                sendmsg(v6.as_raw_fd(), &slices, &source, flags, Some(&target))?;
            }
            (IpAddr::V6(_), None) => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(())
    }

    /// Datagrams that the kernel did not take.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// What becomes readable when there is a datagram; nothing while they are not open.
    pub(super) fn fds(&self) -> Option<[BorrowedFd<'_>; 2]> {
        let Sockets { v4, v6 } = self.sockets.as_ref()?;
        Some([v4.as_fd(), v6.as_ref().unwrap_or(v4).as_fd()])
    }
}

impl Sockets {
    fn open(port: u16) -> io::Result<Self> {
        let v4 = open(AddressFamily::Inet)?;
        socket_filter::attach(&v4, socket_filter::stun(Begins::WithIpv4, port))?;
        let v6 = match open(AddressFamily::Inet6) {
            Ok(v6) => Some(v6),
            Err(Errno::EAFNOSUPPORT) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(v6) = &v6 {
            socket_filter::attach(v6, socket_filter::stun(Begins::WithUdp, port))?;
            setsockopt(v6, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { v4, v6 })
    }

    /// The next message of a version: its length and, as IPv6 has them beside it, where from and to which address of ours.
    fn receive(&self, is_v6: bool, buffer: &mut [u8]) -> io::Result<(usize, Option<(Ipv6Addr, Ipv6Addr)>)> {
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        if !is_v6 {
            let message = recvmsg::<()>(self.v4.as_raw_fd(), &mut slices, None, flags)?;
            return Ok((message.bytes, None));
        }
        let Some(v6) = &self.v6 else { return Err(io::ErrorKind::WouldBlock.into()) };
        let mut control = cmsg_space!(libc::in6_pktinfo);
        let message = recvmsg::<SockaddrIn6>(v6.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        let to = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
            _ => None,
        });
        let from = message.address.map(|address| address.ip());
        Ok((message.bytes, Some(from.zip(to).ok_or(io::ErrorKind::InvalidData)?)))
    }
}

fn open(family: AddressFamily) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, SockType::Raw, flags, SockProtocol::Udp)
}

#[cfg(test)]
mod tests;
