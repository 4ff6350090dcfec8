//! UDP sockets.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::ReadBuf;

use super::{
    ConnectError, Denied, Network, Transport,
    network::connect_error,
    state::{Shared, State},
};

/// A UDP socket. Dropping it closes it.
pub struct UdpSocket {
    shared: Rc<Shared>,
    port: u16,
}

impl Network {
    /// A UDP socket on `port` of all addresses; 0 takes a free one.
    ///
    /// # Errors
    /// [`ConnectError::Busy`] when the port is taken or there are too many sockets.
    pub fn bind_udp(&self, port: u16) -> Result<UdpSocket, ConnectError> {
        let mut state = self.0.state();
        if state.has_stopped {
            return Err(ConnectError::Stopped);
        }
        let port = state.stack.bind_udp(port).map_err(connect_error)?;
        state.sockets.udp.insert(port, None);
        Ok(UdpSocket { shared: Rc::clone(&self.0), port })
    }
}

impl UdpSocket {
    /// The port it is bound to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the underlay has room for what is sent.
    pub async fn writable(&self) {
        poll_fn(|context| {
            let state = &mut *self.shared.state();
            if state.has_stopped || !state.core.outside.udp.is_full() {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Sends one datagram, if the policy permits. Never waits: what finds no room is dropped and counted, as on a wire; see
    /// [`Self::writable`].
    ///
    /// # Errors
    /// The verdict, or that no peer has the address, or that it is too long ([`ConnectError::Unreachable`]).
    pub fn send_to(&self, payload: &[u8], remote: SocketAddr) -> Result<(), ConnectError> {
        self.shared.use_state().send_to(self.port, payload, remote)
    }

    /// The next datagram and who sent it; what does not fit into `buffer` is cut off. One task at a time waits here.
    ///
    /// # Errors
    /// When the device has ended.
    pub fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let state = &mut *self.shared.state();
        if let Some(len) = state.stack.next_datagram(self.port) {
            let room = buffer.initialize_unfilled_to(len.min(buffer.remaining()));
            if let Some(datagram) = state.stack.recv_from(self.port, room) {
                let taken = datagram.len.min(room.len());
                buffer.advance(taken);
                return Poll::Ready(Ok(datagram.remote));
            }
        }
        // So that it is told of the next one.
        let none = state.stack.recv_from(self.port, &mut []);
        debug_assert!(none.is_none(), "a datagram was not announced");
        if state.has_stopped {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the device has ended")));
        }
        state.sockets.udp.insert(self.port, Some(context.waker().clone()));
        Poll::Pending
    }
}

impl State {
    fn send_to(&mut self, port: u16, payload: &[u8], remote: SocketAddr) -> Result<(), ConnectError> {
        if !self.core.interface.leads_to(remote.ip()) || self.has_stopped {
            // What the policy denies is said and on record also where nobody has the address.
            return self.may_begin(Transport::Udp, remote);
        }
        let (sent, denied) = self.with_output(|stack, now, out| {
            let sent = stack.send_to(now, port, remote, payload, out);
            (sent, out.denied)
        });
        if let Some(decision) = denied {
            let generation = self.core.outside.gate.as_ref().map_or(0, |gate| gate.generation());
            return Err(ConnectError::Denied(Denied { decision, generation }));
        }
        sent.map_err(connect_error)
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let state = &mut *self.shared.state();
        state.stack.close_udp(self.port);
        state.sockets.udp.remove(&self.port);
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("port", &self.port).finish_non_exhaustive()
    }
}
