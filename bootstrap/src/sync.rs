//! Keeps the WireGuard device in step with the network map, and the control plane informed that the peer lives.
//!
//! ```text
//!  push (lattice.config.<id>) ─┐
//!  refresh, every 15 s ────────┼─► newer map? ─► device peers, resolver names
//!  earliest not_after ─────────┘
//!  heartbeat, every 30 s, and at once when the own endpoints changed
//!  renewal, at half of what is left of the NATS JWT or the membership
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_nats::{Client, Subscriber, connection::State};
use futures::StreamExt as _;
use lattice_overlay::{Device, Netns, PeerConfig};
use lattice_wire::{
    Credentials, NetMap,
    message::{Ack, HEARTBEAT_SECS, Heartbeat, REFRESH_SECS},
    netmap::{MAX_ENDPOINTS, MAX_PEERS},
    subject::{self, PeerVerb},
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    Failure, Kind,
    failure::chain,
    identity::{self, now_unix},
    renew::Renewal,
    resolver, session,
};

/// Keeps NAT and firewall state of the underlay alive, in seconds (the value that `wg` documents).
const KEEPALIVE_SECS: u16 = 25;

/// What the task works on.
pub(crate) struct Tunnel {
    pub(crate) client: Client,
    pub(crate) credentials: Credentials,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) underlay: Arc<Netns>,
    pub(crate) names: resolver::Names,
    pub(crate) map: NetMap,
    pub(crate) renewal: Renewal,
}

/// The running task.
pub(crate) struct Sync {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Sync {
    /// Applies the map that `tunnel` holds, then starts to follow its changes.
    pub(crate) async fn start(mut tunnel: Tunnel) -> Result<Self, Failure> {
        let pushes =
            tunnel.client.subscribe(subject::config(&tunnel.credentials.peer)).await.map_err(|error| {
                Failure::new(Kind::Server, format!("cannot subscribe to map updates: {}", chain(&error)))
            })?;
        tunnel.apply().await?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(tunnel.follow(pushes, stopped));
        Ok(Self { stop, task })
    }

    /// Tells the control plane that the peer leaves, and ends the task.
    pub(crate) async fn end(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

impl Tunnel {
    async fn follow(mut self, mut pushes: Subscriber, mut stop: watch::Receiver<bool>) {
        let mut refresh = tokio::time::interval(Duration::from_secs(REFRESH_SECS));
        let mut sent: Option<(Instant, Vec<SocketAddr>)> = None;
        let mut told = false;
        loop {
            let expiry = self.until_expiry();
            // By the clock on the wall, looked at anew at each turn: a host that slept must not be late.
            let renewal = self.renewal.wait(now_unix());
            let work = async {
                tokio::select! {
                    Some(push) = pushes.next() => match session::parse::<NetMap>(&push.payload) {
                        Ok(map) => self.replace(map).await,
                        Err(error) => tracing::warn!(%error, "ignored a pushed map"),
                    },
                    _ = refresh.tick() => {
                        self.watch_device(&mut told).await;
                        self.refresh().await;
                        self.heartbeat(&mut sent).await;
                    }
                    () = tokio::time::sleep(expiry) => self.reapply().await,
                    () = tokio::time::sleep(renewal) => {
                        self.renewal.run(&self.client, &mut self.credentials).await;
                    }
                }
            };
            // Around all of it: a request to a control plane that is gone must not hold the end back.
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = work => {}
            }
        }
        if self.client.connection_state() != State::Connected {
            return;
        }
        let leave = subject::peer(&self.credentials.peer, PeerVerb::Leave);
        let gone = session::request::<Ack>(&self.client, leave, &Ack {});
        if tokio::time::timeout(Duration::from_secs(1), gone).await.is_err() {
            tracing::debug!("could not say good-bye; the peer counts as offline after 90 s");
        }
        let _ = self.client.drain().await;
    }

    async fn refresh(&mut self) {
        match identity::fetch_map(&self.client, &self.credentials).await {
            Ok(map) => self.replace(map).await,
            Err(error) => tracing::debug!(%error, "no map refresh"),
        }
    }

    async fn heartbeat(&self, sent: &mut Option<(Instant, Vec<SocketAddr>)>) {
        let endpoints =
            lattice_overlay::endpoints(&self.underlay, self.device.listen_port()).unwrap_or_default();
        let due = Duration::from_secs(HEARTBEAT_SECS) - Duration::from_secs(1);
        if sent.as_ref().is_some_and(|(at, last)| at.elapsed() < due && *last == endpoints) {
            return;
        }
        let beat = Heartbeat { endpoints: endpoints.clone(), generation: self.map.generation };
        let subject = subject::peer(&self.credentials.peer, PeerVerb::Heartbeat);
        match session::request::<Ack>(&self.client, subject, &beat).await {
            Ok(Ack {}) => *sent = Some((Instant::now(), endpoints)),
            Err(error) => tracing::debug!(%error, "no heartbeat"),
        }
    }

    async fn replace(&mut self, map: NetMap) {
        if map.peer != self.credentials.peer || map.generation <= self.map.generation {
            return;
        }
        // The link, its routes and the policy were made for these.
        if (map.pool, map.address) != (self.map.pool, self.map.address) {
            tracing::warn!(
                address = %map.address, pool = %map.pool,
                "latticed moved this peer to another address or pool: ignored until the next start"
            );
            return;
        }
        self.renewal.membership(map.not_after, now_unix());
        self.map = map;
        self.reapply().await;
    }

    /// A device that is gone drops every packet; without this nobody would be told why.
    async fn watch_device(&self, told: &mut bool) {
        let device = self.device.clone();
        let Ok(Err(error)) = tokio::task::spawn_blocking(move || device.peers()).await else { return };
        if !std::mem::replace(told, true) {
            tracing::error!(error = %chain(&error), "the overlay is gone; packets are dropped until the next start");
        }
    }

    async fn reapply(&mut self) {
        if let Err(error) = self.apply().await {
            tracing::warn!(%error, generation = self.map.generation, "cannot apply the network map");
        }
    }

    async fn apply(&mut self) -> Result<(), Failure> {
        let peers = peers(&self.map, now_unix());
        resolver::update(&self.names, &self.map);
        let device = self.device.clone();
        tokio::task::spawn_blocking(move || device.set_peers(&peers))
            .await
            .map_err(|error| Failure::new(Kind::Internal, error))?
            .map_err(|error| Failure::new(Kind::Kernel, chain(&error)))?;
        tracing::debug!(
            generation = self.map.generation,
            peers = self.map.peers.len(),
            "network map applied"
        );
        Ok(())
    }

    /// Time until the next peer must be dropped; an hour when none must.
    fn until_expiry(&self) -> Duration {
        let now = now_unix();
        let next = self.map.peers.iter().filter_map(|peer| peer.not_after).filter(|at| *at > now).min();
        next.map_or(Duration::from_secs(3600), |at| Duration::from_secs((at - now).unsigned_abs() + 1))
    }
}

/// The device's peers: those whose time is not over, with the addresses of the pool only.
fn peers(map: &NetMap, now: i64) -> Vec<PeerConfig> {
    let alive = map.peers.iter().take(MAX_PEERS).filter(|peer| peer.not_after.is_none_or(|at| at > now));
    alive
        .map(|peer| PeerConfig {
            public_key: peer.public_key,
            allowed_ips: peer
                .allowed_ips
                .iter()
                .filter(|net| match net {
                    ipnet::IpNet::V4(net) => map.pool.contains(net) && !net.contains(&map.address.addr()),
                    ipnet::IpNet::V6(_) => false,
                })
                .copied()
                .collect(),
            endpoints: peer.endpoints.iter().take(MAX_ENDPOINTS).copied().collect(),
            keepalive: Some(KEEPALIVE_SECS),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use lattice_wire::{MapPeer, PeerId, WgPublicKey, WorkspaceId};

    use super::*;

    fn map() -> NetMap {
        let peer = |n: u8, allowed: &str, not_after| MapPeer {
            id: PeerId::from_random([n; 10]),
            name: format!("p{n}").parse().unwrap(),
            public_key: WgPublicKey([n; 32]),
            allowed_ips: vec![allowed.parse().unwrap()],
            endpoints: vec!["192.0.2.1:1".parse().unwrap(); 100],
            online: true,
            not_after,
        };
        NetMap {
            generation: 1,
            workspace: WorkspaceId::from_random([1; 10]),
            peer: PeerId::from_random([9; 10]),
            address: "10.42.0.9/32".parse().unwrap(),
            pool: "10.42.0.0/16".parse().unwrap(),
            peers: vec![
                peer(1, "10.42.0.1/32", None),
                peer(2, "10.42.0.2/32", Some(100)),
                peer(3, "0.0.0.0/0", None),
                peer(4, "10.42.0.9/32", None),
            ],
            not_after: None,
            policy: None,
        }
    }

    #[test]
    fn expired_peers_and_foreign_addresses_do_not_reach_the_device() {
        let at = |now| peers(&map(), now);
        assert_eq!(at(99).len(), 4);
        let later = at(100);
        assert_eq!(later.len(), 3, "the second peer's time is over");
        assert_eq!(later[0].allowed_ips.len(), 1);
        assert!(later[1].allowed_ips.is_empty(), "a default route is no peer's address");
        assert!(later[2].allowed_ips.is_empty(), "nobody gets our own address");
        assert!(later.iter().all(|peer| peer.endpoints.len() <= MAX_ENDPOINTS));
    }
}
