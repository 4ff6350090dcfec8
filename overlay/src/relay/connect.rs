//! Finds a connection that carries full-size datagrams: QUIC, or TCP where that does not come about soon.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice_relay::{
    client::{self, ConnectError, Credential},
    sized_udp,
};
use lattice_wire::lrp;
use socket2::SockRef;
use tokio::{
    net::TcpSocket,
    time::{sleep, timeout},
};

use super::{Transport, client::Shared};
use crate::netns::Netns;

/// How far ahead QUIC is: what it does in this time needs no TCP.
const HEAD_START: Duration = Duration::from_millis(300);
/// Addresses of a relay's name that are tried, one after the other.
const MAX_ADDRESSES: usize = 3;
/// How long a name may take to resolve, or TCP to connect.
const PATIENCE: Duration = Duration::from_secs(5);
/// A full-size datagram is sent this often, and this long after each other, before the path counts as too narrow.
const PROBES: u32 = 4;
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// Bytes of datagrams that wait in QUIC, in each direction.
const QUEUE: usize = 256 << 10;
/// Bytes that TCP takes ahead of what the path carries (`TCP_NOTSENT_LOWAT`, tcp(7)). More would only wait there, with each ping behind it.
const UNSENT: u32 = 64 << 10;

/// A connection that is ready to be used.
pub(super) enum Link {
    Quic(client::Quic, Duration),
    Tcp(client::Tcp),
}

impl Link {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Quic(..) => Transport::Quic,
            Self::Tcp(_) => Transport::Tcp,
        }
    }
}

/// Connects by QUIC, and by TCP when that takes long, fails, or is not wanted. The first that is there is used; the other one is given up.
pub(super) async fn either(shared: &Arc<Shared>, token: &str, quic: bool) -> Result<Link, ConnectError> {
    match (&shared.server.quic, &shared.server.tcp) {
        (Some(_), None) => return self::quic(shared, token).await,
        (Some(_), Some(_)) if quic => {}
        _ => return tcp(shared, token).await,
    }
    let quic = self::quic(shared, token);
    tokio::pin!(quic);
    let first = tokio::select! {
        first = &mut quic => Some(first),
        () = sleep(HEAD_START) => None,
    };
    match first {
        Some(Ok(link)) => Ok(link),
        // What the relay itself says holds for TCP as well.
        Some(Err(error @ (ConnectError::Refused(_) | ConnectError::Fingerprint))) => Err(error),
        Some(Err(_)) => tcp(shared, token).await,
        None => {
            let tcp = tcp(shared, token);
            tokio::pin!(tcp);
            tokio::select! {
                link = &mut quic => match link {
                    Ok(link) => Ok(link),
                    Err(_) => tcp.await,
                },
                link = &mut tcp => match link {
                    Ok(link) => Ok(link),
                    Err(_) => quic.await,
                },
            }
        }
    }
}

/// Connects by QUIC, and sees a full-size datagram come back.
pub(super) async fn quic(shared: &Arc<Shared>, token: &str) -> Result<Link, ConnectError> {
    let credential = Credential { token, key: &shared.key };
    let mut last = no_address();
    for remote in resolve(shared, shared.server.quic.clone()).await? {
        let socket = in_netns(shared, move || match remote {
            SocketAddr::V4(_) => sized_udp((Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => sized_udp((Ipv6Addr::UNSPECIFIED, 0).into()),
        })
        .await?;
        match client::quic(socket, remote, shared.fingerprint, credential, QUEUE).await {
            Ok(quic) => {
                let rtt = full_size(&quic).await?;
                return Ok(Link::Quic(quic, rtt));
            }
            Err(error @ ConnectError::Refused(_)) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects by TCP.
pub(super) async fn tcp(shared: &Arc<Shared>, token: &str) -> Result<Link, ConnectError> {
    let credential = Credential { token, key: &shared.key };
    let mut last = no_address();
    for remote in resolve(shared, shared.server.tcp.clone()).await? {
        let socket = in_netns(shared, move || match remote {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })
        .await?;
        let stream = match timeout(PATIENCE, socket.connect(remote)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                last = error.into();
                continue;
            }
            Err(_) => {
                last = ConnectError::Timeout;
                continue;
            }
        };
        SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT)?;
        match client::tcp(stream, shared.fingerprint, credential).await {
            Ok(tcp) => return Ok(Link::Tcp(tcp)),
            Err(error @ ConnectError::Refused(_)) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The round trip of a full-size datagram: proof that the path carries them, both ways.
async fn full_size(quic: &client::Quic) -> Result<Duration, ConnectError> {
    let narrow = || io::Error::other("the path carries no full-size datagrams");
    for probe in 1..=PROBES {
        let mut body = vec![0; lrp::HANDLE + lrp::FULL_SIZE];
        body[lrp::HANDLE..][..4].copy_from_slice(&probe.to_be_bytes());
        let (body, sent) = (Bytes::from(body), Instant::now());
        match quic.connection.send_datagram(body.clone()) {
            Ok(()) => {}
            Err(quinn::SendDatagramError::TooLarge) => return Err(narrow().into()),
            Err(error) => return Err(io::Error::other(error).into()),
        }
        // A peer's datagram may come first; it is lost, as on any network.
        let back = async {
            while quic.connection.read_datagram().await.map_err(client::lost)? != body {}
            Ok::<_, ConnectError>(())
        };
        match timeout(PROBE_EVERY * probe, back).await {
            Ok(Ok(())) => return Ok(sent.elapsed()),
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    Err(narrow().into())
}

async fn resolve(shared: &Arc<Shared>, name: Option<String>) -> Result<Vec<SocketAddr>, ConnectError> {
    let name = name.ok_or_else(|| io::Error::other("it has no such address"))?;
    let resolving =
        in_netns(shared, move || Ok(name.to_socket_addrs()?.take(MAX_ADDRESSES).collect::<Vec<_>>()));
    timeout(PATIENCE, resolving).await.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::Io)
}

/// Runs `work` in the underlay, on a thread that may block.
async fn in_netns<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let underlay: Arc<Netns> = Arc::clone(&shared.underlay);
    tokio::task::spawn_blocking(move || underlay.run(work)).await.map_err(io::Error::other)??
}

fn no_address() -> ConnectError {
    io::Error::other("its name has no address").into()
}
