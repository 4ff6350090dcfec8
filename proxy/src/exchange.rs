//! The client's end of one HTTP exchange: of what it sends, the request's body goes on and nothing that comes after.
//!
//! A client that says no more may wait for its answer, or be gone: a reset is looked for, and patience has an end. One that still sends when
//! it was answered is read for a while: were it not, the kernel would answer with a reset, which can overtake the answer.

use std::{
    io,
    os::fd::AsRawFd as _,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{Shutdown, shutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use crate::{
    Stream,
    limits::{FAREWELL, FAREWELL_BYTES},
    session,
};

/// Bytes of a body that are read at once.
const PART: usize = 16 << 10;

/// A client in an exchange. To be relayed: its direction ends when the server's has.
pub(crate) struct Exchanging {
    client: Rc<TcpStream>,
    /// Bytes of the body that are still to come.
    left: u64,
    /// How long a client that says no more waits for the next part of its answer.
    patience: Duration,
    silent: Option<Silent>,
    farewell: Option<Farewell>,
    is_told: bool,
}

/// A client that says no more. That does not mean that it wants no answer.
struct Silent {
    /// Ends when it is, which no read shows any more.
    gone: Pin<Box<dyn Future<Output = ()>>>,
    late: Pin<Box<Sleep>>,
}

/// A client that was answered.
struct Farewell {
    /// What it may still send, in bytes.
    left: usize,
    over: Pin<Box<Sleep>>,
}

impl Exchanging {
    pub(crate) fn new(client: TcpStream, left: u64, patience: Duration) -> Self {
        Self { client: Rc::new(client), left, patience, silent: None, farewell: None, is_told: false }
    }

    fn read(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.client.poll_read_ready(context))?;
            match self.client.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Reads what comes after the request, then waits for the end. Ready with an error only.
    fn after_request(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.silent.is_none() {
            match ready!(self.read(context, &mut [0; 512])) {
                Err(error) => return Poll::Ready(error),
                Ok(1..) => {
                    // Others first.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(0) => {}
            }
        }
        let silent = self.silent.get_or_insert_with(|| {
            let client = Rc::clone(&self.client);
            let gone = Box::pin(async move { session::reset(&client).await });
            Silent { gone, late: Box::pin(sleep(self.patience)) }
        });
        if silent.gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionReset.into());
        }
        silent.late.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Reads on until the client has ended, or had its time.
    fn farewell(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 512];
        loop {
            let read = self.read(context, &mut scrap);
            let Some(farewell) = &mut self.farewell else { return Poll::Ready(()) };
            match read {
                Poll::Ready(Ok(read @ 1..)) if read < farewell.left => farewell.left -= read,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return farewell.over.as_mut().poll(context),
            }
        }
    }
}

impl Stream for Exchanging {
    fn reset(&mut self) {
        // Who was told everything has a whole answer, however the rest of the request fared.
        if !self.is_told {
            // Where it fails, the connection is over already.
            let _over = self.client.set_zero_linger();
        }
    }
}

impl AsyncRead for Exchanging {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.farewell.is_some() {
            return Poll::Ready(Ok(()));
        }
        if self.left == 0 {
            return self.after_request(context).map(Err);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(PART).min(buffer.remaining());
        let read = ready!(self.read(context, buffer.initialize_unfilled_to(most)))?;
        if read == 0 && most > 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        buffer.advance(read);
        self.left -= read as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Exchanging {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.client.poll_write_ready(context))?;
            match self.client.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    let due = Instant::now() + self.patience;
                    if let Some(silent) = &mut self.silent {
                        silent.late.as_mut().reset(due);
                    }
                    return Poll::Ready(done);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            match shutdown(self.client.as_raw_fd(), Shutdown::Write) {
                Err(Errno::ENOTCONN) => {}
                done => done?,
            }
            // The server has ended: so has the exchange. The other direction is to see it.
            self.farewell = Some(Farewell { left: FAREWELL_BYTES, over: Box::pin(sleep(FAREWELL)) });
            context.waker().wake_by_ref();
        }
        if self.silent.is_none() {
            ready!(self.farewell(context));
        }
        self.is_told = true;
        Poll::Ready(Ok(()))
    }
}
