//! Outside the overlay, from a network of the command's own: what the policy lets out ends in this process, and goes on by sockets of this host.
//!
//! ```text
//!  the command ─ TCP, UDP ─► wg0 ─► policy, record ─► gateway ─► never (this host) ─► a socket of this host
//! ```
//!
//! The policy has judged such a flow before it gets here, and goes on judging each of its packets. What is decided here is only what no policy
//! opens. A connection is answered when the host's own try was: the command is refused where the host was.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use lattice_overlay::{
    gateway::{Datagrams, Gateway, Request},
    stack::Transport,
};
use tokio::{
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
        if let Err(error) = lattice_proxy::relay(Connection::Agent(agent), stream).await {
            tracing::debug!(%target, %error, "a connection out of the overlay has ended");
        }
    }

    async fn datagrams(&self, flow: Datagrams) {
        let remote = flow.remote();
        let socket = if self.is_refused(Transport::Udp, remote) { None } else { self.socket(remote).await };
        let Some(socket) = socket else {
            // So that not each of its datagrams is looked at anew.
            let _until_then = timeout(IDLE, flow.revoked()).await;
            return;
        };
        loop {
            tokio::select! {
                biased;
                () = flow.revoked() => return,
                datagram = flow.receive() => {
                    // An error is of an earlier one, such as that nobody listens there; then this one was not sent.
                    if socket.send(&datagram).await.is_err() {
                        let _ = socket.send(&datagram).await;
                    }
                }
                _ = socket.readable() => {
                    let buffer = &mut *self.buffer.borrow_mut();
                    if let Ok(length) = socket.try_recv(buffer) {
                        flow.send(&buffer[..length]);
                    }
                }
                () = sleep(IDLE) => return,
            }
        }
    }

    async fn socket(&self, remote: SocketAddr) -> Option<UdpSocket> {
        let any: IpAddr = if remote.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let connect = async || {
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(remote).await?;
            Ok::<_, io::Error>(socket)
        };
        match connect().await {
            Ok(socket) if self.has_come_home(Transport::Udp, remote, socket.local_addr()) => None,
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::debug!(%remote, %error, "datagrams of the command cannot leave");
                None
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
