//! A session on QUIC: datagrams, and a stream for control.

use std::{collections::VecDeque, io};

use bytes::Bytes;
use lattice_relay::client::{self, ConnectError};
use quinn::SendDatagramError;
use tokio::sync::mpsc;

use super::session::Session;

/// Runs until the connection ends.
pub(super) async fn run(
    session: &Session,
    control: &mut mpsc::Receiver<Vec<u8>>,
    link: &mut client::Quic,
) -> ConnectError {
    let connection = link.connection.clone();
    // Acknowledgements are the relay's too: what is asked may wait behind what is sent.
    let signs = || connection.stats().udp_rx.datagrams;
    let ended = tokio::select! {
        error = receive(session, &connection) => error,
        error = send(session, &connection) => error,
        error = read(session, &mut link.frames) => error,
        error = write(control, &mut link.control) => error,
        error = session.watch(|body| drop(connection.send_datagram(body)), signs) => error,
    };
    // When the relay has said why, that is why.
    match ended {
        ConnectError::Io(error) => connection.close_reason().map_or(ConnectError::Io(error), client::lost),
        other => other,
    }
}

async fn receive(session: &Session, connection: &quinn::Connection) -> ConnectError {
    loop {
        match connection.read_datagram().await {
            Ok(body) => session.data(&body),
            Err(error) => return client::lost(error),
        }
    }
}

async fn send(session: &Session, connection: &quinn::Connection) -> ConnectError {
    let (mut taken, mut bodies) = (VecDeque::new(), VecDeque::new());
    loop {
        session.shared.outbox.bell.notified().await;
        session.outgoing(&mut taken, |body| bodies.push_back(body));
        for body in bodies.drain(..) {
            // Waits when the relay takes no more, and meanwhile the outbox drops what is newer.
            match connection.send_datagram_wait(Bytes::from(body)).await {
                Ok(()) => {}
                Err(SendDatagramError::ConnectionLost(error)) => return client::lost(error),
                Err(_) => {
                    session.shared.outbox.drop_one();
                    session.unfit(lattice_relay::fits(connection));
                }
            }
        }
    }
}

async fn read(
    session: &Session,
    frames: &mut lattice_relay::frames::Frames<quinn::RecvStream>,
) -> ConnectError {
    loop {
        match frames.next().await {
            Ok(Some(frame)) => {
                if let Err(error) = session.frame(&frame) {
                    return error;
                }
            }
            Ok(None) => return io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            Err(error) => return error.into(),
        }
    }
}

async fn write(control: &mut mpsc::Receiver<Vec<u8>>, stream: &mut quinn::SendStream) -> ConnectError {
    while let Some(frame) = control.recv().await {
        if let Err(error) = stream.write_all(&frame).await {
            return io::Error::from(error).into();
        }
    }
    io::Error::other("the session ended").into()
}
