//! TCP connections of the agent.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use lattice_netstack::{Error, FlowId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    permits::Permit,
    state::{Shared, State},
};
use crate::stack::{
    ConnectError,
    sockets::{End, Flow},
};

/// A connection of the agent's. Dropping it closes it: what was written is still sent. When the policy permits it no more, it is reset, and
/// reading and writing say so.
pub struct TcpStream {
    shared: Rc<Shared>,
    id: FlowId,
    resets: bool,
    _permit: Permit,
}

impl TcpStream {
    pub(super) fn new(shared: Rc<Shared>, id: FlowId, permit: Permit) -> Self {
        Self { shared, id, resets: false, _permit: permit }
    }

    /// Makes the drop that follows a reset. What was written is sent before it, as far as the agent has room.
    pub fn reset(&mut self) {
        self.resets = true;
    }

    /// Sends also what does not fill a packet at once (no Nagle).
    pub fn set_no_delay(&self, no_delay: bool) {
        // Of a connection that has ended it says nothing.
        let _ = self.shared.use_state().stack.set_no_delay(self.id, no_delay);
    }

    /// As [`crate::stack::TcpStream::poll_cut`].
    pub fn poll_cut(&self, context: &mut Context<'_>) -> Poll<io::Error> {
        let state = &mut *self.shared.state();
        match end_or_wait(state, self.id, context, |flow| &mut flow.watcher) {
            Poll::Ready(end) if end.is_cut() => end.error().map_or(Poll::Pending, Poll::Ready),
            _ => Poll::Pending,
        }
    }

    pub(super) async fn established(&self) -> Result<(), ConnectError> {
        poll_fn(|context| {
            let mut state = self.shared.state();
            let Some(flow) = state.flows.get_mut(&self.id) else {
                return Poll::Ready(Err(ConnectError::Stopped));
            };
            match flow.end {
                _ if flow.is_established => Poll::Ready(Ok(())),
                Some(end) => Poll::Ready(Err(end.connect_error())),
                None => {
                    flow.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// What a call says that the stack had nothing for: the flow's end if it was told, else to wait in `place`.
fn end_or_wait(
    state: &mut State,
    id: FlowId,
    context: &Context<'_>,
    place: impl FnOnce(&mut Flow) -> &mut Option<Waker>,
) -> Poll<End> {
    let Some(flow) = state.flows.get_mut(&id) else { return Poll::Ready(End::Stopped) };
    if let Some(end) = flow.end {
        return Poll::Ready(end);
    }
    match place(flow) {
        Some(waker) => waker.clone_from(context.waker()),
        none => *none = Some(context.waker().clone()),
    }
    Poll::Pending
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
                Ok(0) => break,
                Ok(_) => got = true,
                Err(_) if got => break,
                Err(_) => {
                    let end = end_or_wait(state, self.id, context, |flow| &mut flow.reader);
                    return end.map(|end| end.error().map_or(Ok(()), Err));
                }
            }
        }
        // There is room now that the agent does not know of.
        self.shared.used.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.shared.state();
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match state.stack.send(Instant::now(), self.id, data) {
            Ok(sent) => {
                self.shared.used.notify_one();
                Poll::Ready(Ok(sent))
            }
            Err(Error::ShutDown) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Err(_) => {
                let end = end_or_wait(state, self.id, context, |flow| &mut flow.writer);
                end.map(|end| Err(end.error().unwrap_or(io::ErrorKind::BrokenPipe.into())))
            }
        }
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.shared.use_state();
        if state.stack.shutdown_write(Instant::now(), self.id).is_ok() {
            return Poll::Ready(Ok(()));
        }
        let end = end_or_wait(state, self.id, context, |flow| &mut flow.writer);
        end.map(|end| end.error().map_or(Ok(()), Err))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let state = &mut *self.shared.use_state();
        state.flows.remove(&self.id);
        if self.resets {
            state.stack.reset(self.id);
        } else {
            state.stack.close(Instant::now(), self.id);
        }
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream").field("id", &self.id).finish_non_exhaustive()
    }
}
