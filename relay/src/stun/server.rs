//! The sockets.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, task::JoinSet};
use tracing::debug;

use super::answer;
use crate::{
    metrics::Metrics,
    rate::{Rate, SourceRates},
    transport::sized_udp,
};

/// Requests of one source: room for a rack of hosts behind one NAT, and of little use to flood somebody with.
const RATE: Rate = Rate { burst: 200.0, per_second: 50.0 };
const SLOTS: usize = 16 << 10;
/// Longer datagrams are no requests.
const BUFFER: usize = 1024;

/// An address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (STUN): {source}; give another --listen")]
pub struct StunError {
    address: SocketAddr,
    source: io::Error,
}

/// A running STUN server; ends when it is dropped.
#[derive(Debug)]
pub struct StunServer {
    addresses: Vec<SocketAddr>,
    _sockets: JoinSet<()>,
}

impl StunServer {
    /// Answers on `addresses` from now on, in tasks of the current runtime.
    ///
    /// # Errors
    /// When one cannot be had.
    pub fn start(addresses: &[SocketAddr], metrics: &Arc<Metrics>) -> Result<Self, StunError> {
        let rates = Arc::new(SourceRates::new(RATE, SLOTS, Instant::now()));
        let mut server = Self { addresses: Vec::new(), _sockets: JoinSet::new() };
        for &address in addresses {
            let socket = sized_udp(address).and_then(UdpSocket::from_std);
            let socket = socket.map_err(|source| StunError { address, source })?;
            server.addresses.push(socket.local_addr().unwrap_or(address));
            server._sockets.spawn(serve(socket, Arc::clone(&rates), Arc::clone(metrics)));
        }
        Ok(server)
    }

    /// Where it answers: with their ports, when any was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

async fn serve(socket: UdpSocket, rates: Arc<SourceRates>, metrics: Arc<Metrics>) {
    let mut buffer = [0; BUFFER];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // Errors of earlier answers come back here.
            Err(error) => {
                debug!(%error, "cannot receive STUN requests");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let Some(answer) = answer(&buffer[..length], from) else {
            metrics.stun_malformed.inc();
            continue;
        };
        if !rates.take(from.ip(), Instant::now()) {
            metrics.stun_limited.inc();
            continue;
        }
        // A full socket buffer loses the answer as the network would.
        if socket.try_send_to(&answer, from).is_ok() {
            metrics.stun_answered.inc();
        }
    }
}
