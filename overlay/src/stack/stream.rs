//! TCP connections: of a device with a stack, and of a gateway.

use std::{
    any::Any,
    cell::RefMut,
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use lattice_netstack::{Error, FlowId, Stack};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    ConnectError,
    network::Begun,
    sockets::{End, Flow, Flows},
};

/// What a thread has whose connections these are.
pub(crate) trait Owner {
    /// Its stack, and what is known of the stack's flows.
    fn books(&self) -> (RefMut<'_, Stack>, RefMut<'_, Flows>);

    /// The time.
    fn now(&self) -> Instant;

    /// Has the engine look at what was done.
    fn used(&self);
}

/// A TCP connection. Dropping it closes it: what was written is still sent. When the policy permits it no more, it is reset, and reading and
/// writing say so.
pub struct TcpStream {
    owner: Rc<dyn Owner>,
    id: FlowId,
    local: SocketAddr,
    remote: SocketAddr,
    resets: bool,
    /// What ends with it.
    _held: Option<Box<dyn Any>>,
}

impl TcpStream {
    pub(crate) fn new(owner: Rc<dyn Owner>, begun: Begun) -> Self {
        let Begun { id, local, remote } = begun;
        Self { owner, id, local, remote, resets: false, _held: None }
    }

    /// Has `held` dropped when the stream is.
    pub(crate) fn holding(mut self, held: impl Any) -> Self {
        self._held = Some(Box::new(held));
        self
    }

    /// The other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Makes the drop that follows a reset. What was written is sent before it, as far as the peer has room.
    pub fn reset(&mut self) {
        self.resets = true;
    }

    /// Sends also what does not fill a packet at once (no Nagle).
    pub fn set_no_delay(&self, no_delay: bool) {
        self.owner.used();
        // Of a connection that has ended it says nothing.
        let _ = self.owner.books().0.set_no_delay(self.id, no_delay);
    }

    /// Ready, with what reading would say, once the connection is cut off: by the policy, with its peer's address, or with the device. One
    /// task at a time waits here, whether or not it reads and writes too.
    pub fn poll_cut(&self, context: &mut Context<'_>) -> Poll<io::Error> {
        let (_, mut flows) = self.owner.books();
        match self.end_or_wait(&mut flows, context, |flow| &mut flow.watcher) {
            Poll::Ready(end) if end.is_cut() => end.error().map_or(Poll::Pending, Poll::Ready),
            _ => Poll::Pending,
        }
    }

    /// Waits for the connection to be made.
    pub(crate) async fn established(&self) -> Result<(), ConnectError> {
        poll_fn(|context| {
            let (_, mut flows) = self.owner.books();
            if flows.get(&self.id).is_some_and(|flow| flow.is_established) {
                return Poll::Ready(Ok(()));
            }
            let end = self.end_or_wait(&mut flows, context, |flow| &mut flow.reader);
            end.map(|end| Err(end.connect_error()))
        })
        .await
    }

    /// What a call says that the stack had nothing for: the flow's end if it was told, else to wait in `place`. No other task waits there.
    fn end_or_wait(
        &self,
        flows: &mut Flows,
        context: &Context<'_>,
        place: impl FnOnce(&mut Flow) -> &mut Option<Waker>,
    ) -> Poll<End> {
        let Some(flow) = flows.get_mut(&self.id) else { return Poll::Ready(End::Stopped) };
        if let Some(end) = flow.end {
            return Poll::Ready(end);
        }
        match place(flow) {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (mut stack, mut flows) = self.owner.books();
        let mut got = false;
        // What there is may be in two pieces.
        while buffer.remaining() > 0 {
            let take = |data: &[u8]| {
                let len = data.len().min(buffer.remaining());
                buffer.put_slice(&data[..len]);
                (len, len)
            };
            match stack.recv_with(self.id, take) {
                Ok(0) => break,
                Ok(_) => got = true,
                Err(_) if got => break,
                Err(_) => {
                    let end = self.end_or_wait(&mut flows, context, |flow| &mut flow.reader);
                    return end.map(|end| end.error().map_or(Ok(()), Err));
                }
            }
        }
        // There is room now that the peer does not know of.
        self.owner.used();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let now = self.owner.now();
        let (mut stack, mut flows) = self.owner.books();
        match stack.send(now, self.id, data) {
            Ok(sent) => {
                self.owner.used();
                Poll::Ready(Ok(sent))
            }
            Err(Error::ShutDown) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Err(_) => {
                let end = self.end_or_wait(&mut flows, context, |flow| &mut flow.writer);
                end.map(|end| Err(end.error().unwrap_or(io::ErrorKind::BrokenPipe.into())))
            }
        }
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.owner.used();
        let now = self.owner.now();
        let (mut stack, mut flows) = self.owner.books();
        if stack.shutdown_write(now, self.id).is_ok() {
            return Poll::Ready(Ok(()));
        }
        let end = self.end_or_wait(&mut flows, context, |flow| &mut flow.writer);
        end.map(|end| end.error().map_or(Ok(()), Err))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.owner.used();
        let now = self.owner.now();
        let (mut stack, mut flows) = self.owner.books();
        flows.remove(&self.id);
        if self.resets {
            stack.reset(self.id);
        } else {
            stack.close(now, self.id);
        }
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, remote, .. } = self;
        f.debug_struct("TcpStream").field("local", local).field("remote", remote).finish_non_exhaustive()
    }
}
