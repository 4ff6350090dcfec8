//! Bytes both ways between two connections.
//!
//! Each direction is read only while its receiver takes what was read: back-pressure passes through. What was read lies on the stack for
//! as long as it takes to hand it on; only what the receiver does not take at once is kept, so a connection on which nothing moves, or
//! everything does, holds no buffer. An end in one direction (FIN) is passed on, and the other direction goes on. When a connection breaks, or
//! the relay is dropped before both directions have ended, both are reset: nobody takes a part for the whole.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::ReadBuf;

use crate::{
    Stream,
    limits::{CHUNK, ROUNDS},
};

/// Two connections, until both directions have ended.
#[derive(Debug)]
pub(crate) struct Relay<A: Stream, B: Stream> {
    a: A,
    b: B,
    forth: Direction,
    back: Direction,
}

/// Relays between two connections until both directions have ended. Both are reset when one breaks, and when the future is dropped.
///
/// # Errors
/// Why it did not end by itself.
pub async fn relay<A: Stream, B: Stream>(a: A, b: B) -> io::Result<()> {
    Relay::new(a, b, Vec::new()).await
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    /// What the receiver did not take yet, from `start` on.
    kept: Vec<u8>,
    start: usize,
    /// What was written may wait in the receiver's own buffer.
    unflushed: bool,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The sender has ended; the receiver is to be told.
    Ending,
    Ended,
}

// === impl Relay ===

impl<A: Stream, B: Stream> Relay<A, B> {
    /// Relays between `a` and `b`; `early` came from `a` already.
    pub(crate) fn new(a: A, b: B, early: Vec<u8>) -> Self {
        Self { a, b, forth: Direction { kept: early, ..Direction::default() }, back: Direction::default() }
    }
}

impl<A: Stream, B: Stream> Future for Relay<A, B> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { a, b, forth, back } = self.get_mut();
        if let Poll::Ready(revoked) = a.poll_revoked(context) {
            return Poll::Ready(Err(revoked));
        }
        if let Poll::Ready(revoked) = b.poll_revoked(context) {
            return Poll::Ready(Err(revoked));
        }
        let forth = forth.poll(context, a, b)?;
        let back = back.poll(context, b, a)?;
        if forth.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl<A: Stream, B: Stream> Drop for Relay<A, B> {
    fn drop(&mut self) {
        if (self.forth.state, self.back.state) != (State::Ended, State::Ended) {
            self.a.reset();
            self.b.reset();
        }
    }
}

// === impl Direction ===

impl Direction {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS {
            ready!(self.write_kept(context, to))?;
            match self.state {
                State::Open => ready!(self.copy(context, from, to))?,
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        // Others first.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn write_kept(&mut self, context: &mut Context<'_>, to: &mut impl Stream) -> Poll<io::Result<()>> {
        while let rest @ [_, ..] = &self.kept[self.start..] {
            match ready!(Pin::new(&mut *to).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.start += written,
            }
            self.unflushed = true;
        }
        self.kept = Vec::new();
        self.start = 0;
        Poll::Ready(Ok(()))
    }

    /// Moves one chunk, or what there is of it. Nothing is kept when this is called.
    fn copy(
        &mut self,
        context: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> Poll<io::Result<()>> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        if Pin::new(from).poll_read(context, &mut chunk)?.is_pending() {
            if self.unflushed {
                ready!(Pin::new(to).poll_flush(context))?;
                self.unflushed = false;
            }
            return Poll::Pending;
        }
        let read = chunk.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(to).poll_write(context, read)? {
            Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(written) => written,
            Poll::Pending => 0,
        };
        self.unflushed = true;
        self.kept.extend_from_slice(&read[written..]);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
