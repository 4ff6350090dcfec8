//! Outside the overlay, from a network of the command's own: what the policy lets out ends in this process, and goes on by sockets of this host.
//!
//! ```text
//!  the command ─ TCP, UDP, ping ─► wg0 ─► policy, record ─► gateway ─► never (this host) ─► a socket of this host
//! ```
//!
//! The policy has judged such a flow before it gets here, and goes on judging each of its packets. What is decided here is only what no policy
//! opens. A connection is answered when the host's own try was: the command is refused where the host was. Pings go by the kernel's ping sockets
//! (`icmp(7)`), which the host permits the groups of `net.ipv4.ping_group_range`.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    rc::Rc,
    time::Duration,
};

use lattice_overlay::{
    gateway::{Datagrams, Gateway, Request, Unreachable},
    stack::Transport,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};
use tokio::{
    io::Interest,
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    generations::Generations,
    proxied::{
        never::{is_own, why_never},
        record::Record,
        stream::Connection,
    },
    recorder::Teller,
};

/// How long a host is tried: what the kernel's own attempts take (`tcp_syn_retries` of `tcp(7)`), and some more.
const DIAL: Duration = Duration::from_secs(135);

/// After so long without a datagram a flow is forgotten. What RFC 4787 §4.3 asks of a NAT.
const IDLE: Duration = Duration::from_secs(120);

/// Why a ping that a rule permits goes nowhere.
const NO_PING: &str =
    "lattice: this host has no ping sockets for this user's group: sysctl net.ipv4.ping_group_range";

/// The longest datagram, in bytes.
const DATAGRAM: usize = 65_535;

/// What every flow shares.
struct Ways {
    record: Record,
    /// For the datagrams of all flows, one at a time.
    buffer: RefCell<Vec<u8>>,
}

/// Takes on what comes out of the link. Ends with the gateway.
pub(super) async fn serve(gateway: Gateway, teller: Teller, rules: Generations, own: [IpAddr; 2]) {
    let record = Record::new("lattice", teller, rules, own);
    let ways = Rc::new(Ways { record, buffer: RefCell::new(vec![0; DATAGRAM]) });
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            request = gateway.request() => {
                let ways = Rc::clone(&ways);
                served.spawn_local(async move { ways.connection(request).await });
            }
            flow = gateway.datagrams() => {
                let ways = Rc::clone(&ways);
                served.spawn_local(async move { ways.datagrams(flow).await });
            }
            Some(_) = served.join_next() => {}
        }
    }
}

impl Ways {
    async fn connection(&self, request: Request) {
        let target = request.target();
        if self.is_refused(Transport::Tcp, target) {
            return;
        }
        let dialled = tokio::select! {
            biased;
            () = request.revoked() => return,
            dialled = timeout(DIAL, TcpStream::connect(target)) => dialled,
        };
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return refuse(request, &error),
            Err(_) => return request.refuse_as_unreachable(),
        };
        if self.has_come_home(Transport::Tcp, target, stream.local_addr()) {
            return;
        }
        let _ = stream.set_nodelay(true);
        let agent = match request.accept().await {
            Ok(agent) => agent,
            Err(error) => return tracing::debug!(%target, %error, "the command has given up a connection"),
        };
        agent.set_no_delay(true);
        if let Err(error) = lattice_proxy::relay(Connection::Device(agent), stream).await {
            tracing::debug!(%target, %error, "a connection out of the overlay has ended");
        }
    }

    async fn datagrams(&self, flow: Datagrams) {
        let socket = match self.socket(&flow).await {
            Ok(socket) => socket,
            Err(why) => return refuse_all(&flow, why).await,
        };
        loop {
            tokio::select! {
                biased;
                () = flow.revoked() => return,
                error = error_of(&socket) => tell(&flow, &error),
                datagram = flow.receive() => {
                    // An error is of an earlier one, such as that nobody listens there; then this one was not sent.
                    if let Err(error) = socket.send(&datagram).await {
                        tell(&flow, &error);
                        if let Err(error) = socket.send(&datagram).await {
                            tell(&flow, &error);
                        }
                    }
                }
                _ = socket.readable() => {
                    let buffer = &mut *self.buffer.borrow_mut();
                    match take(&socket, flow.transport(), flow.remote().ip(), buffer) {
                        Ok(Some(length)) => flow.send(&buffer[..length]),
                        Ok(None) => {}
                        Err(error) => tell(&flow, &error),
                    }
                }
                () = sleep(IDLE) => return,
            }
        }
    }

    /// A socket of this host for a flow. Where that is refused here and not by the network, it is on record why.
    async fn socket(&self, flow: &Datagrams) -> Result<UdpSocket, Unreachable> {
        let (transport, remote) = (flow.transport(), flow.remote());
        if self.is_refused(transport, remote) {
            return Err(Unreachable::Prohibited);
        }
        let opened = if transport == Transport::Icmp { ping(remote) } else { udp(remote).await };
        match opened {
            Ok(socket) if self.has_come_home(transport, remote, socket.local_addr()) => {
                Err(Unreachable::Prohibited)
            }
            Ok(socket) => Ok(socket),
            Err(error) if transport == Transport::Icmp && error.raw_os_error() == Some(libc::EACCES) => {
                self.record.denied(transport, remote, NO_PING.to_owned(), None);
                Err(Unreachable::Prohibited)
            }
            Err(error) => {
                tracing::debug!(%remote, %error, "datagrams of the command cannot leave");
                Err(Unreachable::Host)
            }
        }
    }

    /// Whether `remote` is what no policy opens; then that is on record.
    fn is_refused(&self, transport: Transport, remote: SocketAddr) -> bool {
        let why = why_never(remote.ip());
        if let Some(what) = why {
            self.record.refused(transport, remote, what, None);
        }
        why.is_some()
    }

    /// Whether a socket to `remote` has stayed on this host, which may have got the address since it was asked for.
    fn has_come_home(&self, transport: Transport, remote: SocketAddr, local: io::Result<SocketAddr>) -> bool {
        let home = local.map_or(true, |local| is_own(local.ip(), remote.ip()));
        if home {
            self.record.refused(transport, remote, "an address of this host", None);
        }
        home || self.is_refused(transport, remote)
    }
}

async fn udp(remote: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if remote.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(remote).await?;
    Ok(socket)
}

/// A ping socket: what is sent and received by it is ICMP messages, from their type on. `EACCES` where the host has none for this group.
fn ping(remote: SocketAddr) -> io::Result<UdpSocket> {
    let (family, protocol) = if remote.is_ipv4() {
        (AddressFamily::Inet, SockProtocol::Icmp)
    } else {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Datagram, flags, protocol)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(remote))?;
    UdpSocket::from_std(socket.into())
}

/// Takes what has come to a socket that is connected to `remote`, if that has sent it. A ping socket is given whatever answer has its identifier,
/// whoever it is from: the kernel looks at the connected address for sending alone.
fn take(
    socket: &UdpSocket,
    transport: Transport,
    remote: IpAddr,
    buffer: &mut [u8],
) -> io::Result<Option<usize>> {
    if transport != Transport::Icmp {
        return socket.try_recv(buffer).map(Some);
    }
    let (length, from) = socket.try_recv_from(buffer)?;
    // An echo reply, of ICMP and of ICMPv6 (RFC 792, RFC 4443).
    let reply = if remote.is_ipv4() { 0 } else { 129 };
    let is_answer =
        from.ip().to_canonical() == remote.to_canonical() && buffer[..length].first() == Some(&reply);
    Ok(is_answer.then_some(length))
}

/// Waits for what the kernel heard of a datagram that was sent.
async fn error_of(socket: &UdpSocket) -> io::Error {
    let taken =
        socket.async_io(Interest::ERROR, || socket.take_error()?.ok_or(io::ErrorKind::WouldBlock.into()));
    taken.await.unwrap_or_else(|error| error)
}

/// Tells the command what the kernel has told us of a datagram of its.
fn tell(flow: &Datagrams, error: &io::Error) {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => flow.refuse(Unreachable::Port),
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::EPERM) => {
            flow.refuse(Unreachable::Host);
        }
        // There was none, or it was too long for the way: its sender hears of that from nobody, as behind many a NAT.
        _ => {}
    }
}

/// Refuses whatever comes of a flow, until it is forgotten: so that not each of its datagrams is looked at anew.
async fn refuse_all(flow: &Datagrams, why: Unreachable) {
    loop {
        tokio::select! {
            biased;
            () = flow.revoked() => return,
            _ = flow.receive() => flow.refuse(why),
            () = sleep(IDLE) => return,
        }
    }
}

/// Tells the command what the kernel has told us.
fn refuse(request: Request, error: &io::Error) {
    tracing::debug!(target = %request.target(), %error, "a connection of the command's was not made");
    match error.kind() {
        // Dropped, it is refused.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => drop(request),
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)) => {
            tracing::warn!(%error, "a connection of the command's is refused");
            drop(request);
        }
        _ => request.refuse_as_unreachable(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process, thread};

    use nix::{
        sched::{CloneFlags, unshare},
        sys::socket::{MsgFlags, SockaddrIn, sendto},
    };

    use super::*;

    /// An echo reply with its checksum (RFC 1071).
    fn reply(identifier: u16, text: [u8; 2]) -> [u8; 10] {
        let mut message = [0, 0, 0, 0, 0, 0, 0, 1, text[0], text[1]];
        message[4..6].copy_from_slice(&identifier.to_be_bytes());
        let words = message.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
        let sum: u32 = words.sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    /// Needs root, as network namespaces and raw sockets do.
    #[test]
    fn a_ping_is_answered_by_who_was_asked_and_nobody_else() {
        let check = async || {
            let socket = ping("127.0.0.1:0".parse().unwrap()).unwrap();
            let identifier = socket.local_addr().unwrap().port();
            let send = |from: [u8; 4], text| {
                let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
                let raw = nix::sys::socket::socket(family, SockType::Raw, flags, SockProtocol::Icmp).unwrap();
                let [a, b, c, d] = from;
                nix::sys::socket::bind(raw.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
                let (to, message) = (SockaddrIn::new(127, 0, 0, 1, 0), reply(identifier, text));
                sendto(raw.as_raw_fd(), &message, &to, MsgFlags::empty()).unwrap();
            };
            // They come in this order, and the last is there when the first is.
            send([127, 0, 0, 2], *b"no");
            send([127, 0, 0, 1], *b"ok");
            let (mut buffer, mut taken) = ([0; 64], Vec::new());
            for _ in 0..2 {
                timeout(Duration::from_secs(10), socket.readable()).await.expect("a reply").unwrap();
                let length = take(&socket, Transport::Icmp, [127, 0, 0, 1].into(), &mut buffer).unwrap();
                taken.push(length.map(|length| buffer[8..length].to_vec()));
            }
            assert_eq!(taken, [None, Some(b"ok".to_vec())]);
        };
        let inside = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN: run the tests as root");
            let up = process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check());
        };
        thread::spawn(inside).join().unwrap();
    }
}
