//! A session on TLS over TCP: control and data share the stream, control and pings first.
//!
//! A ping waits behind what is in the stream already. Where that is much, on an uplink that is full, its answer comes too late to tell
//! that the relay lives; that the stream goes on tells it.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
};

use lattice_relay::{
    client::{ConnectError, Tcp},
    frames::{self, Frames},
};
use lattice_wire::lrp::Frame;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::session::Session;

/// Written at once, in bytes: two TLS records.
const BATCH: usize = 32 << 10;
/// Pings that wait to be written.
const PINGS: usize = 2;

/// Runs until the connection ends.
pub(super) async fn run(
    session: &Session,
    control: &mut mpsc::Receiver<Vec<u8>>,
    link: &mut Tcp,
) -> ConnectError {
    let (ping, mut pings) = mpsc::channel(PINGS);
    let ping = |body: bytes::Bytes| {
        let mut frame = Vec::new();
        Frame::Data(&body).write(&mut frame);
        let _ = ping.try_send(frame);
    };
    let went_on = AtomicU64::new(0);
    tokio::select! {
        // First what the relay has said: it may be why nothing can be written.
        biased;
        error = read(session, &mut link.frames) => error,
        error = write(session, control, &mut pings, &mut link.writer, &went_on) => error.into(),
        error = session.watch(ping, || went_on.load(Ordering::Relaxed)) => error,
    }
}

async fn read(session: &Session, frames: &mut Frames<impl AsyncRead + Unpin>) -> ConnectError {
    loop {
        let frame = match frames.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            Err(error) => return error.into(),
        };
        if let Some(body) = frames::data(&frame) {
            session.data(&body);
        } else if let Err(error) = session.frame(&frame) {
            return error;
        }
    }
}

async fn write(
    session: &Session,
    control: &mut mpsc::Receiver<Vec<u8>>,
    pings: &mut mpsc::Receiver<Vec<u8>>,
    writer: &mut (impl AsyncWrite + Unpin),
    went_on: &AtomicU64,
) -> io::Error {
    let (mut taken, mut bodies) = (VecDeque::new(), VecDeque::<Vec<u8>>::new());
    let mut bytes = Vec::with_capacity(BATCH + 2048);
    loop {
        bytes.clear();
        tokio::select! {
            Some(frame) = control.recv() => bytes.extend(frame),
            Some(frame) = pings.recv() => bytes.extend(frame),
            () = session.shared.outbox.bell.notified() => {}
        }
        session.outgoing(&mut taken, |body| bodies.push_back(body));
        loop {
            while let Ok(frame) = pings.try_recv().or_else(|_| control.try_recv()) {
                bytes.extend(frame);
            }
            while bytes.len() < BATCH
                && let Some(body) = bodies.pop_front()
            {
                Frame::Data(&body).write(&mut bytes);
            }
            if bytes.is_empty() {
                break;
            }
            if let Err(error) = send(writer, &bytes, went_on).await {
                return error;
            }
            bytes.clear();
        }
    }
}

/// Hands all of `bytes` to the kernel. Counts in `went_on` when it takes more after it took none: only what the relay's end has
/// acknowledged makes room.
async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    went_on: &AtomicU64,
) -> io::Result<()> {
    let mut is_full = false;
    poll_fn(|context| {
        loop {
            let taken = match bytes {
                [] => Pin::new(&mut *writer).poll_flush(context).map_ok(|()| 0),
                _ => Pin::new(&mut *writer).poll_write(context, bytes),
            };
            let Poll::Ready(taken) = taken else {
                is_full = true;
                return Poll::Pending;
            };
            let (taken, was_flushed) = (taken?, bytes.is_empty());
            if std::mem::take(&mut is_full) {
                went_on.fetch_add(1, Ordering::Relaxed);
            }
            match taken {
                _ if was_flushed => return Poll::Ready(Ok(())),
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => bytes = &bytes[taken..],
            }
        }
    })
    .await
}
