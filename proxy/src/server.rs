//! Listens, and serves every client in a task of its own.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tracing::{debug, warn};

use crate::{Config, Counters, Outbound, counters::Tally, half_open::HalfOpen, limits::KEEPALIVE, session};

/// Between two tries where the kernel has no descriptor or memory for us.
const BREATH: Duration = Duration::from_millis(200);

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy<O> {
    listener: TcpListener,
    address: SocketAddr,
    shared: Rc<Shared<O>>,
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
#[error("the proxy cannot listen on {address}: {source}; give another address")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared<O> {
    pub(crate) outbound: O,
    pub(crate) config: Config,
    pub(crate) tally: Rc<Tally>,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) associations: Arc<Semaphore>,
}

impl BindError {
    /// What kind of failure it was.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl<O: Outbound> Proxy<O> {
    /// Listens in the network namespace of the calling thread; serves nobody yet.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(config: Config, outbound: O) -> Result<Self, BindError> {
        let address = config.listen();
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Shared {
            outbound,
            tally: Rc::default(),
            connections: Arc::new(Semaphore::new(config.limits.connections)),
            associations: Arc::new(Semaphore::new(config.limits.associations)),
            config,
        };
        Ok(Self { listener, address, shared: Rc::new(shared) })
    }

    /// Where it listens: with its port, when any was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it did until now.
    pub fn counters(&self) -> Counters {
        self.shared.tally.snapshot()
    }

    /// Serves, in tasks of the [`LocalSet`](tokio::task::LocalSet) in which it must be called, until the future is dropped; that
    /// resets every connection.
    pub async fn run(&self) {
        let half_open = HalfOpen::new(self.shared.config.limits.half_open);
        let mut sessions = JoinSet::new();
        loop {
            let next = async {
                half_open.room().await;
                self.listener.accept().await
            };
            let accepted = tokio::select! {
                accepted = next => accepted,
                Some(_) = sessions.join_next() => continue,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                // Out of descriptors, most likely: an accept in a tight loop would not help.
                Err(error) => {
                    warn!(%error, "the proxy cannot accept connections");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            self.shared.tally.count(|c| &mut c.accepted);
            // On a socket for both IP versions, an IPv4 client has a mapped address.
            let client = SocketAddr::new(client.ip().to_canonical(), client.port());
            let place = half_open.place();
            let shared = Rc::clone(&self.shared);
            prepare(&stream);
            let task = sessions.spawn_local(session::serve(shared, stream, client, place));
            if half_open.enter(task) {
                self.shared.tally.count(|c| &mut c.slow);
                debug!("too many clients without a request; the oldest is cut off");
            }
        }
    }
}

/// Small messages at once, and the kernel looks whether a silent client is still there. A client is served without either, too.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let idle = u32::try_from(KEEPALIVE.as_secs()).unwrap_or(u32::MAX);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &idle);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
}
