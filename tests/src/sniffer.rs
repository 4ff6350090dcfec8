//! Every IP packet that passes through a namespace, seen by `packet(7)`: what really left, whatever our own log says.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lattice_overlay::Netns;
use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt},
        time::{TimeVal, TimeValLike as _},
    },
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A packet, as far as a policy looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Source port of TCP and UDP, else 0.
    pub src_port: u16,
    /// Destination port of TCP and UDP, else 0.
    pub dst_port: u16,
}

/// Sees packets from its start until it is dropped.
pub struct Sniffer {
    seen: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// Sees every packet on every link of `netns`, in both directions, for which `of_interest` says yes. An outgoing
    /// packet is seen behind the policy.
    ///
    /// # Panics
    /// Without root.
    pub fn start(netns: &Netns, of_interest: impl Fn(&Packet) -> bool + Send + 'static) -> Self {
        let socket = netns.run(open).expect("the namespace").expect("a packet socket: run as root");
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (found, stopped) = (seen.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            loop {
                // Read before the socket is found empty: what came until the stop is still taken.
                let last = stopped.load(Ordering::Relaxed);
                match recv(socket.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty()) {
                    Ok(length) => {
                        let packet = parse(&buffer[..length]).filter(&of_interest);
                        found.lock().unwrap_or_else(PoisonError::into_inner).extend(packet);
                    }
                    Err(Errno::EAGAIN) if last => break,
                    Err(_) => {}
                }
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Vec<Packet> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it; what was on its way is still seen.
    pub fn finish(mut self) -> Vec<Packet> {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.end();
    }
}

fn open() -> io::Result<OwnedFd> {
    // Of type SOCK_DGRAM: packets begin with their IP header on every kind of link.
    let socket =
        socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100))?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    Ok(socket)
}

fn parse(packet: &[u8]) -> Option<Packet> {
    let at = |offset: usize| packet.get(offset).copied();
    let bytes = |offset: usize, length: usize| packet.get(offset..offset + length);
    let (src, dst, proto, payload): (IpAddr, IpAddr, u8, usize) = match at(0)? >> 4 {
        4 => {
            let address = |offset| bytes(offset, 4)?.try_into().ok().map(<[u8; 4]>::into);
            let (src, dst): (Ipv4Addr, Ipv4Addr) = (address(12)?, address(16)?);
            (src.into(), dst.into(), at(9)?, usize::from(at(0)? & 15) * 4)
        }
        6 => {
            let address = |offset| bytes(offset, 16)?.try_into().ok().map(<[u8; 16]>::into);
            let (src, dst): (Ipv6Addr, Ipv6Addr) = (address(8)?, address(24)?);
            (src.into(), dst.into(), at(6)?, 40)
        }
        _ => return None,
    };
    let port = |offset: usize| match proto {
        TCP | UDP => bytes(offset, 2).map_or(0, |port| u16::from_be_bytes([port[0], port[1]])),
        _ => 0,
    };
    Some(Packet { src, dst, proto, src_port: port(payload), dst_port: port(payload + 2) })
}

/// Gives packets that left before now the time to be seen elsewhere.
pub fn settle() {
    thread::sleep(Duration::from_millis(300));
}
