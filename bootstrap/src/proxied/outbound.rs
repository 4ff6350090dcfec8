//! The network behind the proxy: the overlay by the device's stack, the rest by sockets of this host.
//!
//! ```text
//!  name ─► Asker: judged, resolved, pinned, on record ─► addresses, one after the other
//!  address ─┬─ of the overlay, or a peer's ─► Network::connect: judged, on record ─► WireGuard
//!           └─ any other ─► never (this host) ─► Network::admit: judged, on record ─► a socket of this host
//! ```

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use lattice_dns::Asker;
use lattice_overlay::stack::{self, Network};
use lattice_policy::Overlay;
use lattice_proxy::{Client, Host, Outbound, Refusal, Target};
use tokio::{io::ReadBuf, time::timeout};

use super::{
    flows::Flows,
    outside::Outside,
    refusal::{of_name, of_overlay},
    stream::Connection,
};
use crate::generations::Generations;

/// How long one of several addresses may take to answer before the next is tried.
const ATTEMPT: Duration = Duration::from_secs(4);

/// Most addresses of a name that are tried.
const ATTEMPTS: usize = 8;

/// What is behind the proxy of one sandbox.
#[derive(Clone)]
pub(super) struct Ways {
    pub(super) network: Network,
    pub(super) names: Asker,
    pub(super) outside: Rc<Outside>,
    pub(super) overlay: Overlay,
    pub(super) rules: Generations,
}

/// The datagrams of one association.
pub(super) struct Association {
    ways: Ways,
    client: SocketAddr,
    overlay: stack::UdpSocket,
    outside: Flows,
}

impl Outbound for Ways {
    type Stream = Connection;
    type Datagrams = Association;

    async fn connect(&self, target: &Target, client: Client) -> Result<Connection, Refusal> {
        let addresses = self.addresses(&target.host, client.address).await?;
        let mut first = None;
        let tried = addresses.len().min(ATTEMPTS);
        for (number, address) in addresses.into_iter().take(tried).enumerate() {
            let dial = self.dial(SocketAddr::new(address, target.port), name(&target.host));
            let dialled = match number + 1 == tried {
                // The proxy has a limit of its own.
                true => dial.await,
                false => timeout(ATTEMPT, dial).await.unwrap_or(Err(Refusal::TimedOut)),
            };
            match dialled {
                Ok(connection) => return Ok(connection),
                Err(refusal) => first = first.or(Some(refusal)),
            }
        }
        Err(first.unwrap_or(Refusal::NotFound))
    }

    async fn udp(&self, client: Client) -> Result<Association, Refusal> {
        let overlay = self.network.bind_udp(0).map_err(|error| of_overlay(error, &self.rules))?;
        let outside = Flows::new(Rc::clone(&self.outside));
        Ok(Association { ways: self.clone(), client: client.address, overlay, outside })
    }
}

impl Ways {
    /// Where a target may be. Names are refused and put on record by the resolver.
    async fn addresses(&self, host: &Host, client: SocketAddr) -> Result<Vec<IpAddr>, Refusal> {
        match host {
            Host::Address(address) => Ok(vec![*address]),
            Host::Name(name) => {
                let found = self.names.addresses(name.as_str(), client).await;
                found.map_err(|error| of_name(error, &self.rules))
            }
        }
    }

    async fn dial(&self, remote: SocketAddr, name: Option<&str>) -> Result<Connection, Refusal> {
        if !self.is_overlay(remote.ip()) {
            return self.outside.connect(remote, name).await;
        }
        let stream = self.network.connect(remote).await.map_err(|error| of_overlay(error, &self.rules))?;
        // What the agent has given us at once is on its way at once; a stream that has more to send fills its packets anyway.
        stream.set_no_delay(true);
        Ok(Connection::Device(stream))
    }

    /// Whether `address` is the overlay's: nothing of it ever leaves by another way, whether or not a peer has it.
    fn is_overlay(&self, address: IpAddr) -> bool {
        self.overlay.contains(&address.into()) || self.network.leads_to_peer(address)
    }
}

impl lattice_proxy::Datagrams for Association {
    async fn send(&self, payload: &[u8], target: &Target) -> Result<(), Refusal> {
        let mut first = None;
        for address in self.ways.addresses(&target.host, self.client).await?.into_iter().take(ATTEMPTS) {
            let remote = SocketAddr::new(address, target.port);
            let sent = if self.ways.is_overlay(address) {
                self.overlay.writable().await;
                self.overlay.send_to(payload, remote).map_err(|error| of_overlay(error, &self.ways.rules))
            } else {
                self.outside.send(payload, remote, name(&target.host)).await
            };
            match sent {
                Ok(()) => return Ok(()),
                Err(refusal) => first = first.or(Some(refusal)),
            }
        }
        Err(first.unwrap_or(Refusal::NotFound))
    }

    fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        match self.overlay.poll_recv_from(cx, buffer) {
            Poll::Pending => self.outside.poll_receive(cx, buffer),
            received => received,
        }
    }
}

fn name(host: &Host) -> Option<&str> {
    match host {
        Host::Name(name) => Some(name.as_str()),
        Host::Address(_) => None,
    }
}
