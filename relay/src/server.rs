//! Listens, and serves every connection in a task of its own.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use lattice_wire::relay_token::TrustedKeys;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, crypto::rustls::QuicServerConfig};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::{
    identity::Identity,
    metrics::Metrics,
    rate::Rate,
    registry::Registry,
    session::{quic, tcp},
    sources::{MAX_HALF_OPEN, Sources},
    tls,
    transport::{self, sized_udp},
};

/// What a first QUIC packet may bring along before it is accepted, of one connection and of all, in bytes.
const INCOMING: u64 = 16 << 10;
const INCOMING_TOTAL: u64 = 2 << 20;
/// A sender may be ahead of its rate by what it sends in this time.
const BURST: Duration = Duration::from_millis(100);
/// And by so much at least, in bytes.
const MIN_BURST: f64 = 64.0 * 1024.0;

/// How a relay is run. Its memory is at most `max_clients` × (2 × `queue` + 200 KiB), beyond some 20 MiB.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where LRP over QUIC is served, if at all.
    pub quic: Option<SocketAddr>,
    /// Where LRP over TCP is served, if at all.
    pub tcp: Option<SocketAddr>,
    /// Whose tokens open it.
    pub trusted: TrustedKeys,
    /// Clients at the same time.
    pub max_clients: usize,
    /// Peers that one client may ask for routes to.
    pub max_routes: usize,
    /// Bytes of datagrams that wait for one client.
    pub queue: usize,
    /// Bytes that one client may send per second; `None`: as many as it can.
    pub rate: Option<u64>,
}

impl Config {
    /// A relay for a few hundred clients, which listens nowhere yet.
    pub fn new(trusted: TrustedKeys) -> Self {
        Self {
            quic: None,
            tcp: None,
            trusted,
            max_clients: 1024,
            max_routes: 4096,
            queue: 256 << 10,
            rate: None,
        }
    }
}

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// An address cannot be had.
    #[error("cannot listen on {address} ({transport}): {source}; give another one")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// For what.
        transport: &'static str,
        /// How it failed.
        source: io::Error,
    },
    /// Certificate and key do not fit each other.
    #[error("the relay's certificate cannot be used: {0}; remove relay.pem and pin the new fingerprint")]
    Tls(#[from] rustls::Error),
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trusted: TrustedKeys,
    pub(crate) rate: Rate,
    pub(crate) queue: usize,
}

/// A running relay. Dropping it cuts every connection.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    quic: Option<(Endpoint, SocketAddr)>,
    tcp: Option<SocketAddr>,
    listeners: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Relay {
    /// Listens, and serves from now on, in tasks of the current runtime.
    ///
    /// # Errors
    /// When an address cannot be had, or the identity is of no use.
    pub fn start(config: Config, identity: Identity, metrics: Arc<Metrics>) -> Result<Self, RelayError> {
        let tls = Arc::new(tls::server(identity.certificate, identity.key)?);
        let per_second = config.rate.map_or(f64::INFINITY, |rate| rate as f64);
        let rate = Rate { burst: (per_second * BURST.as_secs_f64()).max(MIN_BURST), per_second };
        // Infinity times no time at all is not a number.
        let rate = if config.rate.is_none() { Rate { burst: f64::MAX, per_second: 0.0 } } else { rate };
        let shared = Arc::new(Shared {
            registry: Registry::new(config.max_clients, config.max_routes),
            metrics,
            trusted: config.trusted,
            rate,
            queue: config.queue,
        });
        let sources = Sources::new(Instant::now());
        let (stop, stopped) = watch::channel(false);
        let mut listeners = JoinSet::new();
        let mut quic = None;
        if let Some(address) = config.quic {
            let endpoint = endpoint(address, Arc::clone(&tls), config.queue)
                .map_err(|source| RelayError::Listen { address, transport: "QUIC", source })?;
            quic = Some((endpoint.clone(), endpoint.local_addr().unwrap_or(address)));
            listeners.spawn(accept_quic(
                endpoint,
                Arc::clone(&shared),
                Arc::clone(&sources),
                stopped.clone(),
            ));
        }
        let mut tcp = None;
        if let Some(address) = config.tcp {
            let listener =
                listen(address).map_err(|source| RelayError::Listen { address, transport: "TCP", source })?;
            tcp = Some(listener.local_addr().unwrap_or(address));
            listeners.spawn(accept_tcp(
                listener,
                TlsAcceptor::from(tls),
                Arc::clone(&shared),
                sources,
                stopped,
            ));
        }
        Ok(Self { shared, quic, tcp, listeners, stop })
    }

    /// Where QUIC is served: with its port, when any was asked for.
    pub fn quic_address(&self) -> Option<SocketAddr> {
        self.quic.as_ref().map(|(_, address)| *address)
    }

    /// Where TCP is served.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// How many clients are registered.
    pub fn clients(&self) -> usize {
        self.shared.registry.len()
    }

    /// Lets nobody in any more, sends every client away, and waits until they are gone, at most for `patience`.
    pub async fn drain(mut self, patience: Duration) {
        let _ = self.stop.send(true);
        self.shared.registry.drain();
        let gone = async {
            while self.listeners.join_next().await.is_some() {}
            if let Some((endpoint, _)) = &self.quic {
                endpoint.wait_idle().await;
            }
        };
        let _ = timeout(patience, gone).await;
    }
}

fn endpoint(address: SocketAddr, tls: Arc<rustls::ServerConfig>, queue: usize) -> io::Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport::config(queue)))
        .max_incoming(MAX_HALF_OPEN)
        .incoming_buffer_size(INCOMING)
        .incoming_buffer_size_total(INCOMING_TOTAL);
    let socket = sized_udp(address)?;
    Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = StdTcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept_quic(
    endpoint: Endpoint,
    shared: Arc<Shared>,
    sources: Arc<Sources>,
    mut stop: watch::Receiver<bool>,
) {
    let mut sessions = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            incoming = endpoint.accept() => incoming,
            Some(_) = sessions.join_next() => continue,
        };
        let Some(incoming) = incoming else { break };
        // A forged source gets nothing but one small packet, while there is reason to suspect one.
        if sources.is_busy() && incoming.may_retry() && !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        match sources.begin(incoming.remote_address().ip(), Instant::now()) {
            Some(half_open) => {
                sessions.spawn(quic::serve(Arc::clone(&shared), incoming, half_open));
            }
            None => incoming.ignore(),
        }
    }
    endpoint.set_server_config(None);
    while sessions.join_next().await.is_some() {}
}

async fn accept_tcp(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    sources: Arc<Sources>,
    mut stop: watch::Receiver<bool>,
) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
        };
        match accepted {
            Ok((stream, remote)) => match sources.begin(remote.ip(), Instant::now()) {
                Some(half_open) => {
                    let session =
                        tcp::serve(Arc::clone(&shared), acceptor.clone(), stream, remote, half_open);
                    sessions.spawn(session);
                }
                None => debug!(%remote, "too many handshakes; closed"),
            },
            // Out of descriptors, most likely: an accept in a tight loop would not help.
            Err(error) => {
                warn!(%error, "cannot accept TCP connections");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}
