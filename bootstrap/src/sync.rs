//! Keeps policy and WireGuard device in step with the network map, and the control plane informed that the peer lives.
//!
//! ```text
//!  push (lattice.config.<id>) ─┐
//!  refresh, every 15 s ────────┼─► newer map? ─► policy, device peers, resolver names
//!  earliest not_after ─────────┘
//!  heartbeat, every 30 s, and at once when the own endpoints changed
//!  renewal, at half of what is left of the NATS JWT or the membership
//! ```
//!
//! No request holds back what needs no answer: what the host tells of its addresses, and the end of somebody's time
//! ([`Applier::meanwhile`]).

mod apply;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_nats::{Client, Subscriber, connection::State};
use futures::StreamExt as _;
use lattice_overlay::Netns;
use lattice_wire::{
    Applied, Credentials, MapUpdate, MapVersion, NetMap,
    message::{Ack, HEARTBEAT_SECS, Heartbeat, Leave, REFRESH_SECS},
    subject::{self, PeerVerb},
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{Failure, Kind, clock::now_unix, failure::chain, identity, renew::Renewal, session};

pub(crate) use apply::Applier;

/// What the task works on.
pub(crate) struct Tunnel {
    pub(crate) client: Client,
    pub(crate) credentials: Credentials,
    pub(crate) underlay: Arc<Netns>,
    pub(crate) applier: Applier,
    pub(crate) renewal: Renewal,
    /// Whether its end is that of the membership.
    pub(crate) for_good: bool,
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
        tunnel.applier.apply().await?;
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
            let (expiry, rung) = (self.applier.until_expiry(), self.applier.rung());
            // By the clock on the wall, looked at anew at each turn: a host that slept must not be late.
            let renewal = self.renewal.wait(now_unix());
            let work = async {
                tokio::select! {
                    Some(push) = pushes.next() => match session::parse::<MapUpdate>(&push.payload) {
                        Ok(update) => {
                            self.applier.heard.again();
                            if self.update(update, None).await == Applied::Gap {
                                self.refresh().await;
                            }
                        }
                        Err(error) => tracing::warn!(%error, "ignored a pushed map"),
                    },
                    _ = refresh.tick() => {
                        self.applier.tick(&mut told).await;
                        self.refresh().await;
                        self.heartbeat(&mut sent).await;
                    }
                    () = tokio::time::sleep(expiry) => self.applier.reapply().await,
                    () = rung => self.applier.reapply().await,
                    () = tokio::time::sleep(renewal) => {
                        self.applier.meanwhile(self.renewal.run(&self.client, &mut self.credentials)).await;
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
        let how = Leave { for_good: self.for_good };
        let gone = session::request::<Ack>(&self.client, leave, &how);
        if tokio::time::timeout(Duration::from_secs(1), gone).await.is_err() {
            tracing::debug!("could not say good-bye; the peer counts as offline after 90 s");
        }
        let _ = self.client.drain().await;
    }

    async fn refresh(&mut self) {
        // What is new may not fit to what we have; then the whole map.
        for have in [Some(self.applier.map.version()), None] {
            let asked = self.applier.map.version();
            let asking = identity::ask_map(&self.client, &self.credentials, have);
            match self.applier.meanwhile(asking).await {
                Ok(update) => {
                    self.applier.heard.again();
                    if self.update(update, Some(asked)).await != Applied::Gap {
                        return;
                    }
                }
                Err(error) => return tracing::debug!(%error, "no map refresh"),
            }
        }
    }

    /// Takes an update that was pushed, or is the answer of who was asked for what is newer than `have`.
    async fn update(&mut self, update: MapUpdate, have: Option<MapVersion>) -> Applied {
        match update {
            MapUpdate::Current => Applied::Same,
            // The answer to what we said that we have is newer, also where it counts from a restored backup.
            MapUpdate::Full(map) if have == Some(self.applier.map.version()) => {
                self.replace(map).await;
                Applied::Newer
            }
            // Whatever is pushed may just be late, so of another history only an answer is taken.
            MapUpdate::Full(map) if map.epoch != self.applier.map.epoch => Applied::Gap,
            MapUpdate::Full(map) if map.generation > self.applier.map.generation => {
                self.replace(map).await;
                Applied::Newer
            }
            MapUpdate::Full(_) => Applied::Same,
            MapUpdate::Delta(delta) => {
                let applied = Arc::make_mut(&mut self.applier.map).apply(delta);
                if applied == Applied::Newer {
                    self.renewal.membership(self.applier.map.not_after, now_unix());
                    self.applier.reapply().await;
                }
                applied
            }
        }
    }

    async fn heartbeat(&mut self, sent: &mut Option<(Instant, Vec<SocketAddr>)>) {
        let port = self.applier.device.listen_port();
        let endpoints = lattice_overlay::endpoints(&self.underlay, port).unwrap_or_default();
        let due = Duration::from_secs(HEARTBEAT_SECS) - Duration::from_secs(1);
        if sent.as_ref().is_some_and(|(at, last)| at.elapsed() < due && *last == endpoints) {
            return;
        }
        let beat = Heartbeat { endpoints: endpoints.clone(), generation: self.applier.map.generation };
        let subject = subject::peer(&self.credentials.peer, PeerVerb::Heartbeat);
        match self.applier.meanwhile(session::request::<Ack>(&self.client, subject, &beat)).await {
            Ok(Ack {}) => {
                self.applier.heard.again();
                *sent = Some((Instant::now(), endpoints));
            }
            Err(error) => tracing::debug!(%error, "no heartbeat"),
        }
    }

    async fn replace(&mut self, map: NetMap) {
        if map.peer != self.credentials.peer {
            return;
        }
        // The link, its routes and the policy were made for these.
        if (map.pool, map.prefix, map.address)
            != (self.applier.map.pool, self.applier.map.prefix, self.applier.map.address)
        {
            tracing::warn!(
                address = %map.address, pool = %map.pool, prefix = %map.prefix,
                "latticed moved this peer to another address, pool or prefix: ignored until the next start"
            );
            return;
        }
        self.renewal.membership(map.not_after, now_unix());
        self.applier.map = Arc::new(map);
        self.applier.reapply().await;
    }
}

#[cfg(test)]
mod tests;
