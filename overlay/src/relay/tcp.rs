//! A session on TLS over TCP: control and data share the stream, control first.

use std::{collections::VecDeque, io};

use lattice_relay::{
    client::{ConnectError, Tcp},
    frames::{self, Frames},
};
use lattice_wire::lrp::Frame;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
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
    tokio::select! {
        // First what the relay has said: it may be why nothing can be written.
        biased;
        error = read(session, &mut link.frames) => error,
        error = write(session, control, &mut pings, &mut link.writer) => error.into(),
        error = session.watch(ping, || 0) => error,
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
            while let Ok(frame) = control.try_recv() {
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
            if let Err(error) = writer.write_all(&bytes).await {
                return error;
            }
            bytes.clear();
        }
        if let Err(error) = writer.flush().await {
            return error;
        }
    }
}
