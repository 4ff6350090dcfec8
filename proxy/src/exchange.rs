//! The client's end of one HTTP exchange: of what it sends, the request's body goes on and nothing that comes after.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::Stream;

/// Bytes of a body that are read at once.
const PART: usize = 16 << 10;

/// A client in an exchange. To be relayed: its direction ends when the server's has.
#[derive(Debug)]
pub(crate) struct Exchanging {
    client: TcpStream,
    /// Bytes of the body that are still to come.
    left: u64,
    is_silent: bool,
    is_answered: bool,
}

impl Exchanging {
    pub(crate) fn new(client: TcpStream, left: u64) -> Self {
        Self { client, left, is_silent: false, is_answered: false }
    }

    /// Reads what comes after the request, so that the kernel does not answer the client with a reset, which can overtake the response.
    fn discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scrap = [0; 512];
        let mut scrap = ReadBuf::new(&mut scrap);
        ready!(Pin::new(&mut self.client).poll_read(context, &mut scrap))?;
        if scrap.filled().is_empty() {
            self.is_silent = true;
        } else {
            // Others first.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Stream for Exchanging {
    fn reset(&mut self) {
        Stream::reset(&mut self.client);
    }
}

impl AsyncRead for Exchanging {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_answered {
            return Poll::Ready(Ok(()));
        }
        if self.left == 0 {
            // That it says no more does not mean that it wants no answer.
            return if self.is_silent { Poll::Pending } else { self.discard(context) };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(PART).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.client).poll_read(context, &mut part))?;
        let read = part.filled().len();
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
        Pin::new(&mut self.client).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server has ended: so has the exchange.
        self.is_answered = true;
        context.waker().wake_by_ref();
        Pin::new(&mut self.client).poll_shutdown(context)
    }
}
