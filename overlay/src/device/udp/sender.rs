//! Runs on their way into the socket, and what becomes of them when it is full.

use std::{
    collections::VecDeque,
    io::IoSlice,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg},
};

use super::{
    Way,
    runs::{Refusals, Run},
};

/// How long a full socket is waited for before the datagrams are dropped, in milliseconds.
const SEND_PATIENCE: u8 = 20;

/// Runs that wait for room at most, where the socket is not waited for: one full turn of a stack, and what WireGuard has to say itself.
const LATE: usize = 8;

/// The sending side of the socket.
#[derive(Debug)]
pub(super) struct Sender {
    socket: Socket,
    refusals: Refusals,
    /// In the order in which they are to be sent.
    late: VecDeque<Run>,
    /// Rooms for others.
    spare: Vec<Run>,
    failed: u64,
}

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    is_v6: bool,
    /// Whether a full one is waited for.
    waits: bool,
}

impl Sender {
    pub(super) fn new(socket: UdpSocket, is_v6: bool) -> Self {
        let socket = Socket { socket, is_v6, waits: true };
        let (refusals, late, spare) = (Refusals::default(), VecDeque::new(), Vec::new());
        Self { socket, refusals, late, spare, failed: 0 }
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket.socket
    }

    pub(super) fn wait_never(&mut self) {
        self.socket.waits = false;
    }

    /// Sends a run, or keeps it, in whose place another is left, for later.
    pub(super) fn send(&mut self, run: &mut Run) {
        if self.late.is_empty() {
            let Sent { lost, is_full } = self.socket.send_run(run, &mut self.refusals);
            self.failed += lost;
            if !is_full {
                return;
            }
        }
        if self.late.len() < LATE {
            let spare = self.spare.pop().unwrap_or_else(Run::new);
            self.late.push_back(std::mem::replace(run, spare));
        } else {
            self.failed += run.count() as u64;
        }
    }

    /// Sends what was kept, and says whether that was all.
    pub(super) fn send_late(&mut self) -> bool {
        while let Some(run) = self.late.front_mut() {
            let Sent { lost, is_full } = self.socket.send_run(run, &mut self.refusals);
            self.failed += lost;
            if is_full {
                return false;
            }
            if let Some(mut run) = self.late.pop_front() {
                run.clear();
                self.spare.push(run);
            }
        }
        // Their rooms are large, and a full socket is rare.
        self.spare.clear();
        true
    }

    pub(super) fn is_full(&self) -> bool {
        !self.late.is_empty()
    }

    pub(super) fn lose(&mut self, count: u64) {
        self.failed += count;
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed
    }
}

/// What became of a run.
struct Sent {
    /// Datagrams that the kernel did not take.
    lost: u64,
    /// What is left of it waits for room.
    is_full: bool,
}

impl Socket {
    /// Sends a run at once, or where the kernel does not want that, one datagram after the other.
    fn send_run(&self, run: &mut Run, refusals: &mut Refusals) -> Sent {
        let none = Sent { lost: 0, is_full: false };
        if run.count() > 1 && refusals.permit(run.to) {
            match u16::try_from(run.segment).map(|segment| self.send(run.to, run.bytes(), Some(segment))) {
                Ok(Ok(())) => return none,
                // No checksum offload on the way, a smaller MTU, a transformation: of the route, not of the socket.
                Ok(Err(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP)) => {
                    refusals.add(run.to);
                }
                Ok(Err(Errno::EAGAIN)) if !self.waits => return Sent { is_full: true, ..none },
                Ok(Err(_)) => return Sent { lost: run.count() as u64, ..none },
                Err(_) => {}
            }
        }
        let mut lost = 0;
        while let Some(datagram) = run.first() {
            match self.send(run.to, datagram, None) {
                Err(Errno::EAGAIN) if !self.waits => return Sent { lost, is_full: true },
                sent => lost += u64::from(sent.is_err()),
            }
            run.pop_first();
        }
        Sent { lost, is_full: false }
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
                Err(Errno::EAGAIN) if self.waits => {
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
pub(crate) fn source_v6(local: IpAddr) -> libc::in6_pktinfo {
    let local = match local {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 }
}

/// As [`source_v6`], where the kernel has IPv4 only.
pub(crate) fn source_v4(local: Ipv4Addr) -> libc::in_pktinfo {
    libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: local.to_bits().to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    }
}
