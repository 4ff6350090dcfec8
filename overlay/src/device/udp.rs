//! The encrypted side: one UDP socket in the underlay, for both IP versions where the kernel has both, which sends and
//! receives runs of equal datagrams at once (`UDP_SEGMENT` and `UDP_GRO`, `udp(7)`).

mod runs;

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn6,
        SockaddrStorage, bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
    },
};

use runs::{Refusals, Run, Runs};

/// How long a full socket is waited for before the datagrams are dropped, in milliseconds.
const SEND_PATIENCE: u8 = 20;

/// Bytes; a receive buffer this large holds 5 ms of 10 Gbit/s.
const SOCKET_BUFFER: usize = 7 << 20;

/// A bound UDP socket and the datagrams to go out next.
#[derive(Debug)]
pub(crate) struct Udp {
    socket: Socket,
    runs: Runs,
    refusals: Refusals,
    control: Vec<u8>,
    failed: u64,
}

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    is_v6: bool,
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
            socket: Socket { socket, is_v6 },
            runs: Runs::new(),
            refusals: Refusals::default(),
            control: cmsg_space!(i32, libc::in6_pktinfo),
            failed: 0,
        })
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
        Ok(self.socket.socket.local_addr()?.port())
    }

    /// Receives a run of datagrams from one sender into `buffer`, each `segment` long but the last, which may be
    /// shorter. `WouldBlock` when there is none.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut slices = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.socket.as_raw_fd(),
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
        let Self { socket, runs, refusals, failed, .. } = self;
        match runs.place(to, len, |run| *failed += socket.send_run(run, refusals)) {
            Some(run) => run.push(len, write),
            None => *failed += 1,
        }
    }

    /// Sends all runs.
    pub(crate) fn flush(&mut self) {
        let Self { socket, runs, refusals, failed, .. } = self;
        runs.flush(|run| *failed += socket.send_run(run, refusals));
    }

    /// Whether datagrams wait for the socket to have room.
    pub(crate) fn is_full(&self) -> bool {
        false
    }

    /// Datagrams the kernel did not take.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }
}

impl Socket {
    /// Sends a run at once, or where the kernel does not want that, one datagram after the other. Returns how many it did not
    /// take.
    fn send_run(&self, run: &Run, refusals: &mut Refusals) -> u64 {
        if run.count() > 1 && refusals.permit(run.to) {
            match u16::try_from(run.segment).map(|segment| self.send(run.to, run.bytes(), Some(segment))) {
                Ok(Ok(())) => return 0,
                // No checksum offload on the way, a smaller MTU, a transformation: of the route, not of the socket.
                Ok(Err(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP)) => {
                    refusals.add(run.to);
                }
                Ok(Err(_)) => return run.count() as u64,
                Err(_) => {}
            }
        }
        let sent = run.bytes().chunks(run.segment).map(|datagram| self.send(run.to, datagram, None));
        sent.filter(Result::is_err).count() as u64
    }

    fn send(&self, to: Way, bytes: &[u8], segment: Option<u16>) -> Result<(), Errno> {
        match self.send_from(to, bytes, segment) {
            // That address is ours no more. The peer will follow to the one the kernel chooses.
            Err(Errno::EINVAL | Errno::EADDRNOTAVAIL | Errno::ENETUNREACH) if to.local.is_some() => {
                self.send_from(Way { local: None, ..to }, bytes, segment)
            }
            done => done,
        }
    }

    fn send_from(&self, to: Way, bytes: &[u8], segment: Option<u16>) -> Result<(), Errno> {
        let Way { remote, local } = to;
        let to = match remote {
            SocketAddr::V4(v4) if self.is_v6 => {
                SockaddrStorage::from(SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())))
            }
            to => SockaddrStorage::from(to),
        };
        let v6 = local.filter(|_| self.is_v6).map(source_v6);
        let v4 = match local {
            Some(IpAddr::V4(local)) if !self.is_v6 => Some(source_v4(local)),
            _ => None,
        };
        let source = v6.as_ref().map(ControlMessage::Ipv6PacketInfo);
        let source = source.or(v4.as_ref().map(ControlMessage::Ipv4PacketInfo));
        let segment = segment.as_ref().map(ControlMessage::UdpGsoSegments);
        let control: &[ControlMessage<'_>] = match (source, segment) {
            (Some(source), Some(segment)) => &[source, segment],
            (Some(one), None) | (None, Some(one)) => &[one],
            (None, None) => &[],
        };
        let slices = [IoSlice::new(bytes)];
        loop {
            match sendmsg(self.socket.as_raw_fd(), &slices, control, MsgFlags::empty(), Some(&to)) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let mut writable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    if poll(&mut writable, PollTimeout::from(SEND_PATIENCE))? == 0 {
                        return Err(Errno::EAGAIN);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Any interface, from this address: where it leaves by is for the routes to say.
fn source_v6(local: IpAddr) -> libc::in6_pktinfo {
    let local = match local {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 }
}

/// As [`source_v6`], where the kernel has IPv4 only.
fn source_v4(local: Ipv4Addr) -> libc::in_pktinfo {
    libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: local.to_bits().to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.socket.as_fd()
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
