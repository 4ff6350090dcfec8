//! The encrypted side: one UDP socket in the underlay, for both IP versions where the kernel has both, which sends and
//! receives runs of equal datagrams at once (`UDP_SEGMENT` and `UDP_GRO`, `udp(7)`).

mod runs;
mod sender;

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn6, SockaddrStorage, bind,
        recvmsg, setsockopt, socket, sockopt,
    },
};

use runs::Runs;
use sender::Sender;
pub(crate) use sender::{source_v4, source_v6};

/// Bytes; a receive buffer this large holds 5 ms of 10 Gbit/s.
const SOCKET_BUFFER: usize = 7 << 20;

/// A bound UDP socket and the datagrams to go out next.
#[derive(Debug)]
pub(crate) struct Udp {
    sender: Sender,
    runs: Runs,
    control: Vec<u8>,
}

impl Udp {
    /// Binds `port` in the network namespace of the calling thread; any port when it is 0 or taken.
    ///
    /// # Errors
    /// When the kernel gives no UDP socket.
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        let (socket, is_v6) = match Self::bind_once(port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port != 0 => Self::bind_once(0)?,
            done => done?,
        };
        Self::with(socket, is_v6)
    }

    /// Binds any port of IPv4 on the loopback link of the calling thread's namespace, whichever of its addresses is meant.
    ///
    /// # Errors
    /// When the kernel gives no UDP socket.
    pub(crate) fn bind_loopback() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        setsockopt(&socket, sockopt::BindToDevice, &"lo".into())?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))?;
        Self::with(socket.into(), false)
    }

    fn with(socket: UdpSocket, is_v6: bool) -> io::Result<Self> {
        // Without CAP_NET_ADMIN over the namespace, what the limits allow.
        if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER)?;
        }
        if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER)?;
        }
        // Kernels before 5.0 have none, and then datagrams come one by one.
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        if is_v6 {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        Ok(Self {
            sender: Sender::new(socket, is_v6),
            runs: Runs::new(),
            control: cmsg_space!(i32, libc::in6_pktinfo),
        })
    }

    /// Has a full socket told of by [`Self::is_full`] from now on, instead of being waited for.
    pub(crate) fn wait_never(&mut self) {
        self.sender.wait_never();
    }

    fn bind_once(port: u16) -> io::Result<(UdpSocket, bool)> {
        let open = |family| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(family, SockType::Datagram, flags, None)
        };
        match open(AddressFamily::Inet6) {
            Ok(socket) => {
                setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
                let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
                bind(socket.as_raw_fd(), &SockaddrStorage::from(any))?;
                Ok((socket.into(), true))
            }
            Err(Errno::EAFNOSUPPORT) => {
                let socket = open(AddressFamily::Inet)?;
                let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                bind(socket.as_raw_fd(), &SockaddrStorage::from(any))?;
                Ok((socket.into(), false))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The port it is bound to.
    ///
    /// # Errors
    /// Never on a bound socket.
    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.sender.socket().local_addr()?.port())
    }

    /// Receives a run of datagrams from one sender into `buffer`, each `segment` long but the last, which may be
    /// shorter. `WouldBlock` when there is none.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut slices = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.sender.socket().as_raw_fd(),
            &mut slices,
            Some(&mut self.control),
            MsgFlags::empty(),
        )?;
        let (mut segment, mut local) = (None, None);
        for message in message.cmsgs()? {
            match message {
                ControlMessageOwned::UdpGroSegments(size) => segment = usize::try_from(size).ok(),
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical());
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    local = Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                }
                _ => {}
            }
        }
        let len = message.bytes;
        let remote = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Received { from: Way { remote, local }, len, segment: segment.unwrap_or(len).max(1) })
    }

    /// Adds a datagram of `len` bytes, which `write` writes, to the run of its way, after sending the run if it does not fit
    /// in. The room has the bytes of an earlier one.
    pub(crate) fn push(&mut self, to: Way, len: usize, write: impl FnOnce(&mut [u8])) {
        let Self { runs, sender, .. } = self;
        match runs.place(to, len, |run| sender.send(run)) {
            Some(run) => run.push(len, write),
            None => sender.lose(1),
        }
    }

    /// Sends all runs, as far as there is room.
    pub(crate) fn flush(&mut self) {
        let Self { runs, sender, .. } = self;
        if sender.send_late() {
            runs.flush(|run| sender.send(run));
        }
    }

    /// Whether datagrams wait for the socket to have room. Those that come meanwhile may be lost.
    pub(crate) fn is_full(&self) -> bool {
        self.sender.is_full()
    }

    /// Datagrams the kernel did not take.
    pub(crate) fn failed(&self) -> u64 {
        self.sender.failed()
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sender.socket().as_fd()
    }
}

/// From address to address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// The other end.
    pub(crate) remote: SocketAddr,
    /// Ours; `None` leaves the choice to the kernel.
    pub(crate) local: Option<IpAddr>,
}

impl Way {
    const NOWHERE: Self = Self { remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), local: None };
}

/// Datagrams received at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) from: Way,
    pub(crate) len: usize,
    pub(crate) segment: usize,
}

/// The sender, an IPv4 one as such.
fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6: &SockaddrIn6 = storage.as_sockaddr_in6()?;
    Some(match v6.ip().to_ipv4_mapped() {
        Some(v4) => SocketAddr::from((v4, v6.port())),
        // Flow and scope kept: a link-local sender can be answered on its link only.
        None => SocketAddr::V6((*v6).into()),
    })
}

#[cfg(test)]
mod tests;
