//! Keeps policy and WireGuard device in step with the network map, and the control plane informed that the peer lives.
//!
//! ```text
//!  push (lattice.config.<id>) ─┐
//!  refresh, every 15 s ────────┼─► newer map? ─► policy, device peers, resolver names
//!  earliest not_after ─────────┘
//!  heartbeat, every 30 s, and at once when the own endpoints changed
//!  renewal, at half of what is left of the NATS JWT or the membership
//! ```

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{Client, Subscriber, connection::State};
use futures::StreamExt as _;
use lattice_overlay::{Device, Netns};
use lattice_wire::{
    Applied, Credentials, MapUpdate, MapVersion, NetMap,
    message::{Ack, HEARTBEAT_SECS, Heartbeat, Leave, REFRESH_SECS},
    subject::{self, PeerVerb},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    Failure, Kind,
    clock::now_unix,
    failure::chain,
    gate,
    guide::Guide,
    heard::Heard,
    identity,
    live::Live,
    renew::Renewal,
    resolver, session,
    settle::{next_expiry, settle},
};

/// What the task works on.
pub(crate) struct Tunnel {
    pub(crate) client: Client,
    pub(crate) credentials: Credentials,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) underlay: Arc<Netns>,
    pub(crate) names: lattice_dns::Names,
    pub(crate) map: Arc<NetMap>,
    /// The same, for whoever asks.
    pub(crate) current: watch::Sender<Arc<NetMap>>,
    /// None on a node.
    pub(crate) live: Option<Arc<Mutex<Live>>>,
    /// Where the device finds paths.
    pub(crate) guide: Option<Guide>,
    pub(crate) standing: Standing,
    /// Every word of the control plane.
    pub(crate) heard: Heard,
    pub(crate) renewal: Renewal,
    /// Whether its end is that of the membership.
    pub(crate) for_good: bool,
}

/// How the newest map was applied.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// It could not be applied, and must be tried again.
    unsettled: bool,
    /// The peer's own time is over.
    over: bool,
    /// Unix seconds of the last application: whose time ends later is still to be dropped.
    applied_at: i64,
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
        let again =
            self.live.as_ref().map(|live| live.lock().unwrap_or_else(PoisonError::into_inner).again());
        loop {
            let expiry = self.until_expiry();
            // By the clock on the wall, looked at anew at each turn: a host that slept must not be late.
            let renewal = self.renewal.wait(now_unix());
            let work = async {
                tokio::select! {
                    Some(push) = pushes.next() => match session::parse::<MapUpdate>(&push.payload) {
                        Ok(update) => {
                            self.heard.again();
                            if self.update(update, None).await == Applied::Gap {
                                self.refresh().await;
                            }
                        }
                        Err(error) => tracing::warn!(%error, "ignored a pushed map"),
                    },
                    _ = refresh.tick() => {
                        self.watch_device(&mut told).await;
                        if let Some(live) = self.live.clone() {
                            let _panicked = tokio::task::spawn_blocking(move || gate::expire(&live)).await;
                        }
                        if self.standing.unsettled {
                            self.reapply().await;
                        }
                        self.refresh().await;
                        self.heartbeat(&mut sent).await;
                    }
                    () = tokio::time::sleep(expiry) => self.reapply().await,
                    () = rung(again.as_deref()) => self.reapply().await,
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
        let how = Leave { for_good: self.for_good };
        let gone = session::request::<Ack>(&self.client, leave, &how);
        if tokio::time::timeout(Duration::from_secs(1), gone).await.is_err() {
            tracing::debug!("could not say good-bye; the peer counts as offline after 90 s");
        }
        let _ = self.client.drain().await;
    }

    async fn refresh(&mut self) {
        // What is new may not fit to what we have; then the whole map.
        for have in [Some(self.map.version()), None] {
            let asked = self.map.version();
            match self.before_expiry(identity::ask_map(&self.client, &self.credentials, have)).await {
                Some(Ok(update)) => {
                    self.heard.again();
                    if self.update(update, Some(asked)).await != Applied::Gap {
                        return;
                    }
                }
                Some(Err(error)) => return tracing::debug!(%error, "no map refresh"),
                None => return,
            }
        }
    }

    /// Takes an update that was pushed, or is the answer of who was asked for what is newer than `have`.
    async fn update(&mut self, update: MapUpdate, have: Option<MapVersion>) -> Applied {
        match update {
            MapUpdate::Current => Applied::Same,
            // The answer to what we said that we have is newer, also where it counts from a restored backup.
            MapUpdate::Full(map) if have == Some(self.map.version()) => {
                self.replace(map).await;
                Applied::Newer
            }
            // Whatever is pushed may just be late, so of another history only an answer is taken.
            MapUpdate::Full(map) if map.epoch != self.map.epoch => Applied::Gap,
            MapUpdate::Full(map) if map.generation > self.map.generation => {
                self.replace(map).await;
                Applied::Newer
            }
            MapUpdate::Full(_) => Applied::Same,
            MapUpdate::Delta(delta) => {
                let applied = Arc::make_mut(&mut self.map).apply(delta);
                if applied == Applied::Newer {
                    self.renewal.membership(self.map.not_after, now_unix());
                    self.reapply().await;
                }
                applied
            }
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
        match self.before_expiry(session::request::<Ack>(&self.client, subject, &beat)).await {
            Some(Ok(Ack {})) => {
                self.heard.again();
                *sent = Some((Instant::now(), endpoints));
            }
            Some(Err(error)) => tracing::debug!(%error, "no heartbeat"),
            None => {}
        }
    }

    async fn replace(&mut self, map: NetMap) {
        if map.peer != self.credentials.peer {
            return;
        }
        // The link, its routes and the policy were made for these.
        if (map.pool, map.prefix, map.address) != (self.map.pool, self.map.prefix, self.map.address) {
            tracing::warn!(
                address = %map.address, pool = %map.pool, prefix = %map.prefix,
                "latticed moved this peer to another address, pool or prefix: ignored until the next start"
            );
            return;
        }
        self.renewal.membership(map.not_after, now_unix());
        self.map = Arc::new(map);
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
        let now = now_unix();
        self.tell_standing(self.map.is_over(now));
        resolver::update(&self.names, &self.map);
        self.current.send_replace(self.map.clone());
        if let Some(guide) = &self.guide {
            guide.follow(&self.map, now);
        }
        let (map, live, device) = (self.map.clone(), self.live.clone(), self.device.clone());
        self.standing.applied_at = now;
        // Until it is done, and also when it panics.
        self.standing.unsettled = true;
        tokio::task::spawn_blocking(move || settle(&map, now, live.as_deref(), device.as_ref()))
            .await
            .map_err(|error| Failure::new(Kind::Internal, error))??;
        self.standing.unsettled = false;
        tracing::debug!(
            generation = self.map.generation,
            peers = self.map.peers.len(),
            "network map applied"
        );
        Ok(())
    }

    /// Says once when the peer's own time is over, and once when it was renewed after all.
    fn tell_standing(&mut self, over: bool) {
        match (std::mem::replace(&mut self.standing.over, over), over) {
            (false, true) => {
                tracing::warn!(
                    "this peer's time in the workspace is over: it reaches nothing until it is renewed"
                );
            }
            (true, false) => tracing::info!("this peer's time in the workspace was renewed"),
            _ => {}
        }
    }

    /// `work`, unless somebody's time is over before: who does not answer must not delay that.
    async fn before_expiry<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.until_expiry(), work).await.ok()
    }

    /// Time until somebody's time is over; an hour when nobody's will be. Nothing when it happened unnoticed: while a host
    /// sleeps, its clock goes on and timers do not.
    fn until_expiry(&self) -> Duration {
        let next = next_expiry(&self.map, self.standing.applied_at);
        let left = next.map_or(3600, |at| at.saturating_sub(now_unix()));
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }
}

/// Ready when `bell` was rung; never without one.
async fn rung(bell: Option<&Notify>) {
    match bell {
        Some(bell) => bell.notified().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
