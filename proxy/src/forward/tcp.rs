//! Connections of peers to a service of the host.

use std::{io, sync::Arc};

use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    Forward,
    udp::{self, Bounds},
};
use crate::{
    Datagrams, Stream,
    limits::{FORWARD_CONNECT, FORWARD_FLOWS, FORWARD_UDP_IDLE},
    relay::Relay,
};

/// Carries what comes in by one port forward. The service is dialled in the network namespace of the calling thread.
#[derive(Debug, Clone)]
pub struct Forwarder {
    forward: Forward,
    places: Arc<Semaphore>,
}

/// A connection to the service, which waits for that of a peer.
#[derive(Debug)]
pub struct Service {
    stream: TcpStream,
    place: OwnedSemaphorePermit,
}

impl Forwarder {
    /// For one port forward; clones share its limit.
    pub fn new(forward: Forward) -> Self {
        Self { forward, places: Arc::new(Semaphore::new(FORWARD_FLOWS)) }
    }

    /// Connects to the service. Done before a peer's connection is accepted, it lets the peer be refused where there is no service.
    ///
    /// # Errors
    /// When there are too many connections (`ResourceBusy`), or the service does not accept within [`FORWARD_CONNECT`].
    pub async fn dial(&self) -> io::Result<Service> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| io::ErrorKind::ResourceBusy)?;
        let stream = timeout(FORWARD_CONNECT, TcpStream::connect(self.forward.to)).await??;
        let _ = stream.set_nodelay(true);
        Ok(Service { stream, place })
    }

    /// Relays a peer's connection that is accepted already. It is reset when the service cannot be reached.
    ///
    /// # Errors
    /// Those of [`dial`](Self::dial) and [`relay`](Service::relay).
    pub async fn connection<S: Stream>(&self, inbound: S) -> io::Result<()> {
        let mut unserved = Unserved(Some(inbound));
        let service = self.dial().await?;
        let Some(inbound) = unserved.0.take() else { return Ok(()) };
        service.relay(inbound).await
    }

    /// Relays the datagrams that come in by `inbound`, a socket on the forwarded port, until it fails. Each peer's address has a socket
    /// of its own towards the service, so that replies find back; at most [`FORWARD_FLOWS`] at a time. Must be called in a
    /// [`LocalSet`](tokio::task::LocalSet).
    ///
    /// # Errors
    /// Why `inbound` is of no use any more.
    pub async fn datagrams<D: Datagrams + 'static>(&self, inbound: D) -> io::Result<()> {
        let bounds = Bounds { flows: FORWARD_FLOWS, idle: FORWARD_UDP_IDLE };
        udp::serve(self.forward.to, inbound, bounds).await
    }
}

impl Service {
    /// Relays between a peer's connection and the service until both directions have ended. Both are reset when one breaks, and when the future
    /// is dropped.
    ///
    /// # Errors
    /// Why it did not end by itself.
    pub async fn relay<S: Stream>(self, inbound: S) -> io::Result<()> {
        let Self { stream, place } = self;
        let ended = Relay::new(inbound, stream, Vec::new()).await;
        drop(place);
        ended
    }
}

/// A connection that nobody serves yet: dropped like that, it is reset.
struct Unserved<S: Stream>(Option<S>);

impl<S: Stream> Drop for Unserved<S> {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            stream.reset();
        }
    }
}
