//! Connections that peers ask for.

use std::{
    fmt,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use lattice_policy::Direction;

use super::{
    ConnectError, Network, TcpStream,
    network::connect_error,
    sockets::Asking,
    state::{Shared, State},
};

/// Takes connections to one port. Dropping it stops that.
pub struct TcpListener {
    shared: Rc<Shared>,
    port: u16,
}

/// A peer that asks for a connection and waits. Dropping it refuses with a reset.
pub struct Request {
    shared: Rc<Shared>,
    asking: Option<Asking>,
    remote: SocketAddr,
}

impl Network {
    /// Takes connections to `port` of all addresses, as the policy lets them in. Others are answered with a reset. Several listeners
    /// share a port: each request is for one of them.
    pub fn listen(&self, port: u16) -> TcpListener {
        let mut state = self.0.use_state();
        state.stack.listen(port);
        state.sockets.listeners.entry(port).or_default().listeners += 1;
        TcpListener { shared: Rc::clone(&self.0), port }
    }
}

impl TcpListener {
    /// The next peer that asks for a connection. It is not answered before [`Request::accept`]. Once the device has ended, none comes.
    pub async fn request(&mut self) -> Request {
        poll_fn(|context| self.poll_request(context)).await
    }

    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Request> {
        let mut state = self.shared.state();
        let Some(listening) = state.sockets.listeners.get_mut(&self.port) else { return Poll::Pending };
        if let Some(asking) = listening.requests.pop_front() {
            let shared = Rc::clone(&self.shared);
            return Poll::Ready(Request { shared, asking: Some(asking), remote: asking.remote });
        }
        if !listening.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            listening.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let state = &mut *self.shared.use_state();
        let Some(listening) = state.sockets.listeners.get_mut(&self.port) else { return };
        listening.listeners -= 1;
        if listening.listeners > 0 {
            return;
        }
        state.stack.stop_listening(self.port);
        let requests = state.sockets.listeners.remove(&self.port).map(|listening| listening.requests);
        for asking in requests.into_iter().flatten() {
            state.refuse(asking);
        }
    }
}

impl Request {
    /// Who asks.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Makes the connection.
    ///
    /// # Errors
    /// When the peer has given up, or there are too many connections.
    pub async fn accept(mut self) -> Result<TcpStream, ConnectError> {
        let Some(asking) = self.asking.take() else { return Err(ConnectError::Stopped) };
        let stream = self.shared.use_state().accept(asking)?;
        let stream = stream.of(Rc::clone(&self.shared));
        stream.established().await?;
        Ok(stream)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(asking) = self.asking.take() {
            self.shared.use_state().refuse(asking);
        }
    }
}

impl State {
    fn accept(&mut self, asking: Asking) -> Result<super::network::Begun, ConnectError> {
        if self.has_stopped {
            return Err(ConnectError::Stopped);
        }
        let id = self.with_output(|stack, now, out| stack.accept(now, asking.id, out));
        self.begun(id.map_err(connect_error)?, Direction::Ingress).ok_or(ConnectError::Stopped)
    }

    fn refuse(&mut self, asking: Asking) {
        self.with_output(|stack, _, out| stack.refuse(asking.id, out));
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("port", &self.port).finish_non_exhaustive()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("remote", &self.remote).finish_non_exhaustive()
    }
}
