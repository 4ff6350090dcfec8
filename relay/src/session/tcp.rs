//! A client on TLS over TCP: control and data share the stream, control first.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use lattice_wire::lrp::{self, Exported, Frame, Reason};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::debug;

use super::{Registered, expired, read, unix_now};
use crate::{
    frames::Frames,
    handshake::{Refused, admit},
    member::Member,
    outbox::{Outbox, Queue},
    server::Shared,
    sources::HalfOpen,
    transport::IDLE,
};

/// Written at once, in bytes: two TLS records.
const BATCH: usize = 32 << 10;
/// How long a client may take to hear why it is sent away.
const FAREWELL: Duration = Duration::from_secs(1);

type Stream = TlsStream<TcpStream>;

/// Serves one connection to its end.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    half_open: HalfOpen,
) {
    let _ = stream.set_nodelay(true);
    let greeted = timeout(lrp::HANDSHAKE, async {
        let stream = acceptor.accept(stream).await?;
        greet(&shared, stream).await
    });
    let greeted = match greeted.await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return debug!(%remote, %error, "no TLS with this client"),
        Err(_) => {
            shared.metrics.handshake(Err(Reason::Protocol));
            return debug!(%remote, "handshake takes too long");
        }
    };
    drop(half_open);
    let (mut frames, mut writer, admitted) = greeted;
    let refused = match admitted {
        Ok(claims) => {
            let (member, control) = Member::new(claims, Outbox::Tcp(Queue::new(shared.queue)));
            match Registered::join(&shared, Arc::clone(&member), "tcp") {
                Ok(_registered) => {
                    shared.metrics.handshake(Ok(()));
                    let reason = run(&shared, &member, control, &mut frames, &mut writer).await;
                    return debug!(%remote, %reason, "connection ended");
                }
                Err(reason) => reason,
            }
        }
        Err(Refused::Because(reason)) => reason,
        Err(Refused::Io(error)) => return debug!(%remote, %error, "handshake failed"),
    };
    shared.metrics.handshake(Err(refused));
    debug!(%remote, reason = %refused, "refused");
    let mut bytes = Vec::new();
    Frame::Closing(refused).write(&mut bytes);
    let farewell = async {
        writer.write_all(&bytes).await?;
        writer.shutdown().await
    };
    let _ = timeout(FAREWELL, farewell).await;
}

type Greeted = (Frames<ReadHalf<Stream>>, WriteHalf<Stream>, Result<lattice_wire::RelayClaims, Refused>);

async fn greet(shared: &Shared, stream: Stream) -> io::Result<Greeted> {
    let exported = stream
        .get_ref()
        .1
        .export_keying_material(Exported::default(), lrp::EXPORTER_LABEL, None)
        .map_err(io::Error::other)?;
    let (reader, mut writer) = tokio::io::split(stream);
    let mut frames = Frames::new(reader);
    let admitted = admit(&mut frames, &mut writer, &exported, &shared.trusted, unix_now()).await;
    Ok((frames, writer, admitted))
}

async fn run(
    shared: &Shared,
    member: &Arc<Member>,
    control: mpsc::Receiver<Frame<'static>>,
    frames: &mut Frames<ReadHalf<Stream>>,
    writer: &mut WriteHalf<Stream>,
) -> Reason {
    let mut writing = pin!(write(member, control, writer));
    let reason = tokio::select! {
        reason = member.dismissed() => reason,
        reason = expired(member) => reason,
        reason = read(shared, member, frames, IDLE) => reason.unwrap_or(Reason::Protocol),
        result = &mut writing => return result.unwrap_or(Reason::Protocol),
    };
    member.dismiss(reason);
    let _ = timeout(FAREWELL, writing).await;
    reason
}

/// Writes control and data until the session is to end, and then why.
async fn write(
    member: &Member,
    mut control: mpsc::Receiver<Frame<'static>>,
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<Reason> {
    let Outbox::Tcp(queue) = &member.outbox else { return Ok(Reason::Protocol) };
    let mut dismissed = pin!(member.dismissed());
    let mut bytes = Vec::with_capacity(BATCH + 2048);
    loop {
        bytes.clear();
        tokio::select! {
            biased;
            reason = &mut dismissed => {
                Frame::Closing(reason).write(&mut bytes);
                writer.write_all(&bytes).await?;
                writer.shutdown().await?;
                return Ok(reason);
            }
            Some(frame) = control.recv() => frame.write(&mut bytes),
            () = queue.bell.notified() => {}
        }
        loop {
            while let Ok(frame) = control.try_recv() {
                frame.write(&mut bytes);
            }
            queue.drain(|body| {
                Frame::Data(body).write(&mut bytes);
                bytes.len() < BATCH
            });
            if bytes.is_empty() || member.is_dismissed() {
                break;
            }
            writer.write_all(&bytes).await?;
            bytes.clear();
        }
        writer.flush().await?;
    }
}
