//! Datagrams outside the overlay: two sockets of this host for each association, made when they are needed, and the flows that the policy has
//! admitted. What comes from anybody else is not taken, as behind a NAT.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use lattice_overlay::stack::Transport;
use lattice_proxy::{Refusal, limits::UDP_TARGETS};
use tokio::{io::ReadBuf, net::UdpSocket};

use super::{
    outside::Outside,
    refusal::of_host,
    stream::{Revoked, revoked},
};

/// After so long without a datagram, a flow makes room for another. What RFC 4787 §4.3 asks of a NAT.
const IDLE: Duration = Duration::from_secs(120);

/// The flows of one association.
pub(super) struct Flows {
    outside: Rc<Outside>,
    v4: OnceCell<UdpSocket>,
    v6: OnceCell<UdpSocket>,
    admitted: RefCell<HashMap<SocketAddr, Flow>>,
    /// Waits for datagrams, perhaps since before there was a socket.
    receiver: RefCell<Option<Waker>>,
}

struct Flow {
    revoked: Revoked,
    used: Instant,
}

impl Flows {
    pub(super) fn new(outside: Rc<Outside>) -> Self {
        Self {
            outside,
            v4: OnceCell::new(),
            v6: OnceCell::new(),
            admitted: RefCell::default(),
            receiver: RefCell::default(),
        }
    }

    /// Sends one datagram, if the policy permits.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn send(
        &self,
        payload: &[u8],
        remote: SocketAddr,
        name: Option<&str>,
    ) -> Result<(), Refusal> {
        if !self.is_admitted(&remote) {
            self.admit(remote, name)?;
        }
        let socket = self.socket(remote.is_ipv4()).map_err(|error| of_host(&error))?;
        socket.send_to(payload, remote).await.map(drop).map_err(|error| of_host(&error))
    }

    /// The next datagram of an admitted flow.
    ///
    /// # Errors
    /// When a socket is of no use any more.
    pub(super) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        self.receiver.replace(Some(cx.waker().clone()));
        for socket in [&self.v4, &self.v6].into_iter().filter_map(OnceCell::get) {
            let free = buffer.filled().len();
            while let Poll::Ready(from) = socket.poll_recv_from(cx, buffer)? {
                if self.is_admitted(&from) {
                    return Poll::Ready(Ok(from));
                }
                buffer.set_filled(free);
            }
        }
        Poll::Pending
    }

    fn is_admitted(&self, remote: &SocketAddr) -> bool {
        let mut admitted = self.admitted.borrow_mut();
        let Some(flow) = admitted.get_mut(remote) else { return false };
        let mut nobody = Context::from_waker(Waker::noop());
        if flow.revoked.as_mut().poll(&mut nobody).is_ready() {
            admitted.remove(remote);
            return false;
        }
        flow.used = Instant::now();
        true
    }

    fn admit(&self, remote: SocketAddr, name: Option<&str>) -> Result<(), Refusal> {
        let now = Instant::now();
        let mut admitted = self.admitted.borrow_mut();
        if admitted.len() >= UDP_TARGETS {
            admitted.retain(|_, flow| now.duration_since(flow.used) < IDLE);
        }
        if admitted.len() >= UDP_TARGETS {
            return Err(Refusal::Busy);
        }
        let admission = self.outside.admit(Transport::Udp, remote, name)?;
        admitted.insert(remote, Flow { revoked: revoked(admission), used: now });
        Ok(())
    }

    fn socket(&self, v4: bool) -> io::Result<&UdpSocket> {
        let (cell, any) = if v4 {
            (&self.v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        } else {
            (&self.v6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        };
        if let Some(socket) = cell.get() {
            return Ok(socket);
        }
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let socket = cell.get_or_init(|| socket);
        if let Some(receiver) = self.receiver.take() {
            receiver.wake();
        }
        Ok(socket)
    }
}
