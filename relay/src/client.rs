//! A client's connection to a relay, up to the welcome.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lattice_wire::lrp::{self, Exported, Frame, Reason};
use nkeys::KeyPair;
use quinn::{
    ClientConfig, ConnectionError, Endpoint, EndpointConfig, TokioRuntime, crypto::rustls::QuicClientConfig,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    frames::Frames,
    tls::{self, Fingerprint},
    transport,
};

/// Keeps NATs open and finds out about a dead path.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// No name is verified, but one must be given.
const NAME: &str = "relay.lattice.internal";

/// Who connects.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    /// From latticed.
    pub token: &'a str,
    /// The nkey that the token names.
    pub key: &'a KeyPair,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Somebody else has answered, or the relay has another key now.
    #[error("the relay's certificate has another fingerprint than the control plane says")]
    Fingerprint,
    /// The relay has said why not.
    #[error("{0}")]
    Refused(Reason),
    /// It took longer than [`lrp::HANDSHAKE`].
    #[error("no answer within {} s", lrp::HANDSHAKE.as_secs())]
    Timeout,
    /// What is between did not work.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A registered connection on QUIC. Closed when it is dropped.
#[derive(Debug)]
pub struct Quic {
    /// Datagrams.
    pub connection: quinn::Connection,
    /// Control frames from the relay.
    pub frames: Frames<quinn::RecvStream>,
    /// Control frames to the relay.
    pub control: quinn::SendStream,
}

/// A registered connection on TLS over TCP.
#[derive(Debug)]
pub struct Tcp {
    /// Control and data from the relay.
    pub frames: Frames<ReadHalf<TlsStream<TcpStream>>>,
    /// Control and data to the relay.
    pub writer: WriteHalf<TlsStream<TcpStream>>,
}

/// Connects by QUIC from `socket`; at most `queue` bytes of datagrams wait in each direction.
///
/// # Errors
/// See [`ConnectError`].
pub async fn quic(
    socket: UdpSocket,
    remote: SocketAddr,
    fingerprint: Fingerprint,
    credential: Credential<'_>,
    queue: usize,
) -> Result<Quic, ConnectError> {
    let (tls, mismatch) = tls::client(fingerprint).map_err(io::Error::other)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = transport::config(queue);
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
    within(&mismatch, async {
        let connecting = endpoint.connect_with(config, remote, NAME).map_err(io::Error::other)?;
        let connection = connecting.await.map_err(lost)?;
        let (mut control, recv) = connection.open_bi().await.map_err(lost)?;
        let mut frames = Frames::new(recv);
        let mut exported = Exported::default();
        connection
            .export_keying_material(&mut exported, lrp::EXPORTER_LABEL, &[])
            .map_err(|_| io::Error::other("TLS exports nothing"))?;
        match greet(&mut frames, &mut control, &exported, credential).await {
            Ok(()) => Ok(Quic { connection, frames, control }),
            // The stream ends with the connection, which says why.
            Err(ConnectError::Io(error)) => {
                Err(connection.close_reason().map_or(ConnectError::Io(error), lost))
            }
            Err(error) => Err(error),
        }
    })
    .await
}

/// Connects by TLS on `stream`.
///
/// # Errors
/// See [`ConnectError`].
pub async fn tcp(
    stream: TcpStream,
    fingerprint: Fingerprint,
    credential: Credential<'_>,
) -> Result<Tcp, ConnectError> {
    let (tls, mismatch) = tls::client(fingerprint).map_err(io::Error::other)?;
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    within(&mismatch, async {
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        let exported = stream
            .get_ref()
            .1
            .export_keying_material(Exported::default(), lrp::EXPORTER_LABEL, None)
            .map_err(io::Error::other)?;
        let (reader, mut writer) = tokio::io::split(stream);
        let mut frames = Frames::new(reader);
        greet(&mut frames, &mut writer, &exported, credential).await?;
        Ok(Tcp { frames, writer })
    })
    .await
}

/// Why a QUIC connection ended: what the relay says, if it was the relay.
pub fn lost(error: ConnectionError) -> ConnectError {
    if let ConnectionError::ApplicationClosed(close) = &error
        && let Some(reason) = Reason::from_code(close.error_code.into_inner())
    {
        return ConnectError::Refused(reason);
    }
    ConnectError::Io(error.into())
}

async fn within<T>(
    mismatch: &AtomicBool,
    connect: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    match timeout(lrp::HANDSHAKE, connect).await {
        Ok(Err(_)) if mismatch.load(Ordering::Relaxed) => Err(ConnectError::Fingerprint),
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout),
    }
}

async fn greet(
    frames: &mut Frames<impl AsyncRead + Unpin>,
    writer: &mut (impl AsyncWrite + Unpin),
    exported: &Exported,
    credential: Credential<'_>,
) -> Result<(), ConnectError> {
    if credential.token.len() > lattice_wire::relay_token::MAX_TOKEN {
        return Err(io::Error::other("the relay token is too long").into());
    }
    send(writer, Frame::Hello(credential.token)).await?;
    let challenge = next(frames).await?;
    let challenge = match Frame::parse(&challenge) {
        Ok(Frame::Challenge(challenge)) => challenge,
        other => return Err(unexpected(other)),
    };
    let signature = credential.key.sign(&lrp::proof_bytes(&challenge, exported)).map_err(io::Error::other)?;
    let signature = signature.try_into().map_err(|_| io::Error::other("the nkey signs otherwise"))?;
    send(writer, Frame::Proof(signature)).await?;
    let welcome = next(frames).await?;
    match Frame::parse(&welcome) {
        Ok(Frame::Welcome) => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn unexpected(frame: Result<Frame<'_>, lrp::InvalidFrame>) -> ConnectError {
    match frame {
        Ok(Frame::Closing(reason)) => ConnectError::Refused(reason),
        _ => io::Error::new(io::ErrorKind::InvalidData, "the relay does not speak LRP").into(),
    }
}

async fn next(frames: &mut Frames<impl AsyncRead + Unpin>) -> io::Result<Bytes> {
    frames.next().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), frame: Frame<'_>) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    writer.write_all(&bytes).await?;
    writer.flush().await
}
