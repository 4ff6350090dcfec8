//! The encrypted side: one UDP socket in the underlay, for both IP versions where the kernel has both, which sends and
//! receives runs of equal datagrams at once (`UDP_SEGMENT` and `UDP_GRO`, `udp(7)`).

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

/// The kernel's bound on segments in one send (`UDP_MAX_SEGMENTS` of kernels before 6.9).
const MAX_SEGMENTS: usize = 64;

/// A little less than the largest UDP payload, which bounds a whole run too.
const MAX_RUN: usize = 65_000;

/// How long a full socket is waited for before the datagrams are dropped, in milliseconds.
const SEND_PATIENCE: u8 = 20;

/// Runs sent one datagram at a time after the kernel refused to segment one, before it is asked again: a refusal may
/// belong to one route (a tunnel, a smaller MTU) and not to the socket.
const SEGMENTATION_PAUSE: u32 = 256;

/// Bytes; a receive buffer this large holds 5 ms of 10 Gbit/s.
const SOCKET_BUFFER: usize = 7 << 20;

/// A bound UDP socket and the run of datagrams to go out next.
#[derive(Debug)]
pub(super) struct Udp {
    socket: UdpSocket,
    is_v6: bool,
    run: Vec<u8>,
    run_to: Way,
    segment: usize,
    segments: usize,
    pause: u32,
    control: Vec<u8>,
    failed: u64,
}

impl Udp {
    /// Binds `port` in the network namespace of the calling thread; any port when it is 0 or taken.
    ///
    /// # Errors
    /// When the kernel gives no UDP socket.
    pub(super) fn bind(port: u16) -> io::Result<Self> {
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
            socket,
            is_v6,
            run: Vec::with_capacity(MAX_RUN),
            run_to: Way { remote: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), local: None },
            segment: 0,
            segments: 0,
            pause: 0,
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
    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Receives a run of datagrams from one sender into `buffer`, each `segment` long but the last, which may be
    /// shorter. `WouldBlock` when there is none.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Run> {
        let mut slices = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
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
        Ok(Run { from: Way { remote, local }, len, segment: segment.unwrap_or(len).max(1) })
    }

    /// Adds a datagram of `len` bytes, which `write` writes, to the run, after sending the run if it does not fit in.
    pub(super) fn push(&mut self, to: Way, len: usize, write: impl FnOnce(&mut [u8])) {
        let fits = self.segments > 0
            && self.segments < MAX_SEGMENTS
            && self.run_to == to
            && len <= self.segment
            && self.run.len() == self.segments * self.segment
            && self.run.len() + len <= MAX_RUN;
        if !fits {
            self.flush();
            self.run_to = to;
            self.segment = len;
        }
        let end = self.run.len();
        self.run.resize(end + len, 0);
        write(&mut self.run[end..]);
        self.segments += 1;
    }

    /// Sends the run.
    pub(super) fn flush(&mut self) {
        if self.segments == 0 {
            return;
        }
        if self.segments == 1 || !self.send_segmented() {
            for datagram in self.run.chunks(self.segment) {
                if self.send(datagram, None).is_err() {
                    self.failed += 1;
                }
            }
        }
        self.run.clear();
        self.segments = 0;
    }

    /// Datagrams the kernel did not take.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// False when the datagrams must go one by one.
    fn send_segmented(&mut self) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        let Ok(segment) = u16::try_from(self.segment) else { return false };
        match self.send(&self.run, Some(segment)) {
            Ok(()) => true,
            Err(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP) => {
                self.pause = SEGMENTATION_PAUSE;
                false
            }
            Err(_) => {
                self.failed += self.segments as u64;
                true
            }
        }
    }

    fn send(&self, bytes: &[u8], segment: Option<u16>) -> Result<(), Errno> {
        match self.send_from(self.run_to.local, bytes, segment) {
            // That address is ours no more. The peer will follow to the one the kernel chooses.
            Err(Errno::EINVAL | Errno::EADDRNOTAVAIL | Errno::ENETUNREACH) if self.run_to.local.is_some() => {
                self.send_from(None, bytes, segment)
            }
            done => done,
        }
    }

    fn send_from(&self, local: Option<IpAddr>, bytes: &[u8], segment: Option<u16>) -> Result<(), Errno> {
        let to = match self.run_to.remote {
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
        self.socket.as_fd()
    }
}

/// From address to address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// The other end.
    pub(super) remote: SocketAddr,
    /// Ours; `None` leaves the choice to the kernel.
    pub(super) local: Option<IpAddr>,
}

/// Datagrams received at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) from: Way,
    pub(super) len: usize,
    pub(super) segment: usize,
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
