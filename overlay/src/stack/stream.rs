//! TCP connections.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use lattice_netstack::{Error, FlowId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    ConnectError,
    network::Begun,
    sockets::{End, Flow},
    state::{Shared, State},
};

/// A TCP connection. Dropping it closes it: what was written is still sent.
pub struct TcpStream {
    shared: Rc<Shared>,
    id: FlowId,
    local: SocketAddr,
    remote: SocketAddr,
    resets: bool,
}

impl TcpStream {
    pub(super) fn new(shared: Rc<Shared>, begun: Begun) -> Self {
        let Begun { id, local, remote } = begun;
        Self { shared, id, local, remote, resets: false }
    }

    /// The other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Makes the drop that follows a reset.
    pub fn reset(&mut self) {
        self.resets = true;
    }

    /// Sends also what does not fill a packet at once (no Nagle).
    pub fn set_no_delay(&self, no_delay: bool) {
        // Of a connection that has ended it says nothing.
        let _ = self.shared.use_state().stack.set_no_delay(self.id, no_delay);
    }

    /// Ready, with what reading would say, once the connection is cut off: by the policy, with its peer's address, or with the device. One
    /// task at a time waits here, whether or not it reads and writes too.
    pub fn poll_cut(&self, context: &mut Context<'_>) -> Poll<io::Error> {
        let state = &mut *self.shared.state();
        let Some(flow) = self.flow(state) else { return Poll::Pending };
        match flow.end.filter(|end| end.is_cut()).and_then(End::error) {
            Some(error) => Poll::Ready(error),
            None => {
                wait(&mut flow.watcher, context);
                Poll::Pending
            }
        }
    }

    /// Waits for the connection to be made.
    pub(super) async fn established(&self) -> Result<(), ConnectError> {
        poll_fn(|context| {
            let mut state = self.shared.state();
            let flow = state.sockets.flows.get_mut(&self.id);
            let Some(flow) = flow else { return Poll::Ready(Err(ConnectError::Stopped)) };
            match flow.end {
                _ if flow.is_established => Poll::Ready(Ok(())),
                Some(end) => Poll::Ready(Err(end.connect_error())),
                None => {
                    wait(&mut flow.reader, context);
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn flow<'a>(&self, state: &'a mut State) -> Option<&'a mut Flow> {
        state.sockets.flows.get_mut(&self.id)
    }

    /// What a call says of a flow that the stack knows no more: its end, if that has been told.
    fn end(&self, state: &mut State) -> Option<End> {
        self.flow(state).map_or(Some(End::Stopped), |flow| flow.end)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let state = &mut *self.shared.state();
        let mut got = false;
        // What there is may be in two pieces.
        while buffer.remaining() > 0 {
            let take = |data: &[u8]| {
                let len = data.len().min(buffer.remaining());
                buffer.put_slice(&data[..len]);
                (len, len)
            };
            match state.stack.recv_with(self.id, take) {
                Ok(0) => {
                    self.shared.used();
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => got = true,
                Err(_) if got => break,
                Err(Error::WouldBlock) => {
                    self.flow(state).into_iter().for_each(|flow| wait(&mut flow.reader, context));
                    return Poll::Pending;
                }
                Err(_) => {
                    let Some(end) = self.end(state) else {
                        // It is about to be told.
                        self.flow(state).into_iter().for_each(|flow| wait(&mut flow.reader, context));
                        return Poll::Pending;
                    };
                    return Poll::Ready(end.error().map_or(Ok(()), Err));
                }
            }
        }
        // There is room now that the peer does not know of.
        self.shared.used();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.shared.state();
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let now = state.now();
        match state.stack.send(now, self.id, data) {
            Ok(sent) => {
                self.shared.used();
                Poll::Ready(Ok(sent))
            }
            Err(Error::ShutDown) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Err(error) => match self.end(state) {
                Some(end) if error != Error::WouldBlock => {
                    Poll::Ready(Err(end.error().unwrap_or(io::ErrorKind::BrokenPipe.into())))
                }
                _ => {
                    self.flow(state).into_iter().for_each(|flow| wait(&mut flow.writer, context));
                    Poll::Pending
                }
            },
        }
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.shared.use_state();
        let now = state.now();
        if state.stack.shutdown_write(now, self.id).is_ok() {
            return Poll::Ready(Ok(()));
        }
        match self.end(state) {
            Some(end) => Poll::Ready(end.error().map_or(Ok(()), Err)),
            None => {
                self.flow(state).into_iter().for_each(|flow| wait(&mut flow.writer, context));
                Poll::Pending
            }
        }
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let state = &mut *self.shared.use_state();
        state.sockets.flows.remove(&self.id);
        if self.resets {
            state.stack.reset(self.id);
        } else {
            let now = state.now();
            state.stack.close(now, self.id);
        }
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, remote, .. } = self;
        f.debug_struct("TcpStream").field("local", local).field("remote", remote).finish_non_exhaustive()
    }
}

/// Has the task of `context` woken, and no other.
fn wait(place: &mut Option<Waker>, context: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}
