//! Connections of peers to a service of the host.

use std::{io, sync::Arc};

use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tracing::debug;

use super::{
    Forward,
    udp::{self, Bounds},
};
use crate::{
    Datagrams, Stream,
    limits::{FORWARD_CONNECT, FORWARD_FLOWS, FORWARD_UDP_IDLE},
    relay::Relay,
};

/// Carries what comes in by one port forward. Connections are dialled in the network namespace of the calling thread.
#[derive(Debug, Clone)]
pub struct Forwarder {
    forward: Forward,
    places: Arc<Semaphore>,
}

impl Forwarder {
    /// For one port forward; clones share its limit.
    pub fn new(forward: Forward) -> Self {
        Self { forward, places: Arc::new(Semaphore::new(FORWARD_FLOWS)) }
    }

    /// Relays one connection of a peer until both directions have ended. It is reset when the service cannot be reached, when there are
    /// too many, and when the future is dropped.
    ///
    /// # Errors
    /// Why it did not end by itself.
    pub async fn connection<S: Stream>(&self, inbound: S) -> io::Result<()> {
        let mut inbound = Unserved(Some(inbound));
        let Ok(_place) = self.places.try_acquire() else {
            return Err(io::Error::other(format!("{}: too many connections", self.forward)));
        };
        let service = match timeout(FORWARD_CONNECT, TcpStream::connect(self.forward.to)).await {
            Ok(Ok(service)) => service,
            Ok(Err(error)) => {
                debug!(forward = %self.forward, %error, "the service cannot be reached");
                return Err(error);
            }
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let _ = service.set_nodelay(true);
        let Some(inbound) = inbound.0.take() else { return Ok(()) };
        Relay::new(inbound, service, Vec::new()).await
    }

    /// Relays the datagrams that come in by `inbound`, a socket on the forwarded port, until it fails. Each peer's address has a socket
    /// of its own towards the service, so that replies find back; at most [`FORWARD_FLOWS`] at a time.
    ///
    /// # Errors
    /// Why `inbound` is of no use any more.
    pub async fn datagrams<D: Datagrams + 'static>(&self, inbound: D) -> io::Result<()> {
        let bounds = Bounds { flows: FORWARD_FLOWS, idle: FORWARD_UDP_IDLE };
        udp::serve(self.forward.to, inbound, bounds).await
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
