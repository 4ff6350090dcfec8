//! A client on QUIC.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use lattice_wire::lrp::{self, Exported, Frame, Reason};
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tracing::debug;

use super::{Registered, expired, read, unix_now};
use crate::{
    frames::Frames,
    handshake::{Refused, admit},
    member::Member,
    outbox::Outbox,
    rate::Bucket,
    server::Shared,
    sources::HalfOpen,
};

/// Serves one connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, incoming: Incoming, half_open: HalfOpen) {
    let remote = incoming.remote_address();
    let Ok(connecting) = incoming.accept() else { return };
    let greeted = timeout(lrp::HANDSHAKE, async {
        let connection = connecting.await.map_err(io::Error::from)?;
        let greeted = greet(&shared, &connection).await;
        Ok::<_, io::Error>((connection, greeted))
    });
    let (connection, greeted) = match greeted.await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return debug!(%remote, %error, "no QUIC with this client"),
        Err(_) => {
            shared.metrics.handshake(Err(Reason::Protocol));
            return debug!(%remote, "handshake takes too long");
        }
    };
    drop(half_open);
    let reason = match greeted {
        Ok((member, control, send, mut frames)) => {
            match Registered::join(&shared, Arc::clone(&member), "quic") {
                Ok(_registered) => {
                    shared.metrics.handshake(Ok(()));
                    run(&shared, &member, control, send, &mut frames, &connection).await
                }
                Err(reason) => refuse(&shared, reason),
            }
        }
        Err(Refused::Because(reason)) => refuse(&shared, reason),
        Err(Refused::Io(error)) => {
            debug!(%remote, %error, "handshake failed");
            refuse(&shared, Reason::Protocol)
        }
    };
    connection.close(VarInt::from_u32(reason.code().into()), reason.to_string().as_bytes());
    debug!(%remote, %reason, "connection ended");
}

fn refuse(shared: &Shared, reason: Reason) -> Reason {
    shared.metrics.handshake(Err(reason));
    reason
}

type Greeted = (Arc<Member>, mpsc::Receiver<Frame<'static>>, SendStream, Frames<RecvStream>);

async fn greet(shared: &Shared, connection: &Connection) -> Result<Greeted, Refused> {
    let (mut send, recv) = connection.accept_bi().await.map_err(io::Error::from)?;
    let mut frames = Frames::new(recv);
    let mut exported = Exported::default();
    connection
        .export_keying_material(&mut exported, lrp::EXPORTER_LABEL, &[])
        .map_err(|_| io::Error::other("TLS exports nothing"))?;
    let claims = admit(&mut frames, &mut send, &exported, &shared.trusted, unix_now()).await?;
    let outbox = Outbox::Quic { connection: connection.clone(), limit: shared.queue };
    let (member, control) = Member::new(claims, outbox);
    Ok((member, control, send, frames))
}

async fn run(
    shared: &Arc<Shared>,
    member: &Arc<Member>,
    control: mpsc::Receiver<Frame<'static>>,
    mut send: SendStream,
    frames: &mut Frames<RecvStream>,
    connection: &Connection,
) -> Reason {
    // A task of its own, which nothing but datagrams wakes.
    let mut data = JoinSet::new();
    data.spawn(datagrams(Arc::clone(shared), Arc::clone(member), connection.clone()));
    tokio::select! {
        reason = member.dismissed() => reason,
        reason = expired(member) => reason,
        reason = read(shared, member, frames, Duration::MAX) => reason.unwrap_or(Reason::Protocol),
        () = write(control, &mut send) => Reason::Protocol,
    }
}

async fn datagrams(shared: Arc<Shared>, member: Arc<Member>, connection: Connection) {
    let mut bucket = Bucket::new(shared.rate, Instant::now());
    while let Ok(body) = connection.read_datagram().await {
        if bucket.take(shared.rate, body.len() as f64, Instant::now()) {
            member.forward(body, &shared.metrics);
        } else {
            shared.metrics.dropped.rate.inc();
        }
    }
}

async fn write(mut control: mpsc::Receiver<Frame<'static>>, send: &mut SendStream) {
    let mut bytes = Vec::new();
    while let Some(frame) = control.recv().await {
        bytes.clear();
        frame.write(&mut bytes);
        while let Ok(frame) = control.try_recv() {
            frame.write(&mut bytes);
        }
        if send.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
