//! Bytes both ways between two connections.
//!
//! Each direction is read only while its receiver takes what was read: back-pressure passes through. What was read lies on the stack for
//! as long as it takes to hand it on; only what the receiver does not take at once is kept, so a connection on which nothing moves, or
//! everything does, holds no buffer. An end in one direction (FIN) is passed on, and the other direction goes on. When a connection breaks, or
//! the relay is dropped before both directions have ended, both are reset: nobody takes a part for the whole.
//!
//! Who takes no more may have said why before (a server that refuses an upload answers and resets): what came from there is handed on before
//! the reset is, as a kernel hands out what it received before it tells of one.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::ReadBuf,
    time::{Sleep, sleep},
};

use crate::{
    Stream,
    limits::{CHUNK, LAST_WORDS, ROUNDS},
};

/// Two connections, until both directions have ended.
#[derive(Debug)]
pub(crate) struct Relay<A: Stream, B: Stream> {
    a: A,
    b: B,
    forth: Direction,
    back: Direction,
    last_words: Option<LastWords>,
}

/// What one end has said before it broke, on its way to the other.
#[derive(Debug)]
struct LastWords {
    /// Why it broke.
    error: io::Error,
    of: End,
    /// How long the other may take.
    over: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    A,
    B,
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
        let forth = Direction { kept: early, ..Direction::default() };
        Self { a, b, forth, back: Direction::default(), last_words: None }
    }

    fn poll_both(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { a, b, forth, back, last_words } = self;
        let forth = match forth.poll(context, a, b) {
            Err(broken) => {
                *last_words = Some(broken.last_words(End::B)?);
                return Poll::Ready(Ok(()));
            }
            Ok(forth) => forth,
        };
        let back = match back.poll(context, b, a) {
            Err(broken) => {
                *last_words = Some(broken.last_words(End::A)?);
                return Poll::Ready(Ok(()));
            }
            Ok(back) => back,
        };
        if forth.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl<A: Stream, B: Stream> Future for Relay<A, B> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(revoked) = this.a.poll_revoked(context) {
            return Poll::Ready(Err(revoked));
        }
        if let Poll::Ready(revoked) = this.b.poll_revoked(context) {
            return Poll::Ready(Err(revoked));
        }
        if this.last_words.is_none() {
            ready!(this.poll_both(context))?;
        }
        let Self { a, b, forth, back, last_words } = this;
        let Some(last) = last_words else { return Poll::Ready(Ok(())) };
        let told = match last.of {
            End::A => forth.poll_rest(context, a, b),
            End::B => back.poll_rest(context, b, a),
        };
        if told.is_pending() {
            ready!(last.over.as_mut().poll(context));
        }
        // Its kind and its text, which are all that anybody looks at.
        Poll::Ready(Err(io::Error::new(last.error.kind(), last.error.to_string())))
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

/// Which end of a direction has broken.
enum Broken {
    Sender(io::Error),
    Receiver(io::Error),
}

impl Broken {
    /// Those of the receiver, which is `of`. A sender was heard to its end when it broke.
    fn last_words(self, of: End) -> io::Result<LastWords> {
        match self {
            Self::Receiver(error) => Ok(LastWords { error, of, over: Box::pin(sleep(LAST_WORDS)) }),
            Self::Sender(error) => Err(error),
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
    ) -> Result<Poll<()>, Broken> {
        for _ in 0..ROUNDS {
            let done = match self.write_kept(context, to)? {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => match self.state {
                    State::Open => self.copy(context, from, to)?,
                    State::Ending => {
                        let done = Pin::new(&mut *to).poll_shutdown(context);
                        done.map_err(Broken::Receiver)?.map(|()| self.state = State::Ended)
                    }
                    State::Ended => return Ok(Poll::Ready(())),
                },
            };
            if done.is_pending() {
                return Ok(Poll::Pending);
            }
        }
        // Others first.
        context.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    /// Hands on what is still there of a sender that has broken, and not its end: ready when there is no more, or nobody who takes it.
    fn poll_rest(
        &mut self,
        context: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> Poll<()> {
        for _ in 0..ROUNDS {
            match self.write_kept(context, to) {
                Ok(Poll::Ready(())) if self.state == State::Open => {}
                Ok(Poll::Pending) => return Poll::Pending,
                _ => return Poll::Ready(()),
            }
            match self.copy(context, from, to) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => return Poll::Pending,
                Err(_) => return Poll::Ready(()),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn write_kept(&mut self, context: &mut Context<'_>, to: &mut impl Stream) -> Result<Poll<()>, Broken> {
        while let rest @ [_, ..] = &self.kept[self.start..] {
            let Poll::Ready(written) =
                Pin::new(&mut *to).poll_write(context, rest).map_err(Broken::Receiver)?
            else {
                return Ok(Poll::Pending);
            };
            match written {
                0 => return Err(Broken::Receiver(io::ErrorKind::WriteZero.into())),
                written => self.start += written,
            }
            self.unflushed = true;
        }
        self.kept = Vec::new();
        self.start = 0;
        Ok(Poll::Ready(()))
    }

    /// Moves one chunk, or what there is of it. Nothing is kept when this is called.
    fn copy(
        &mut self,
        context: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> Result<Poll<()>, Broken> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        if Pin::new(from).poll_read(context, &mut chunk).map_err(Broken::Sender)?.is_pending() {
            if self.unflushed && Pin::new(to).poll_flush(context).map_err(Broken::Receiver)?.is_ready() {
                self.unflushed = false;
            }
            return Ok(Poll::Pending);
        }
        let read = chunk.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Ok(Poll::Ready(()));
        }
        let written = match Pin::new(to).poll_write(context, read).map_err(Broken::Receiver)? {
            Poll::Ready(0) => return Err(Broken::Receiver(io::ErrorKind::WriteZero.into())),
            Poll::Ready(written) => written,
            Poll::Pending => 0,
        };
        self.unflushed = true;
        self.kept.extend_from_slice(&read[written..]);
        Ok(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests;
