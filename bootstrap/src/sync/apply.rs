//! Applies the network map: to the policy, the device and the resolver.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lattice_overlay::Device;
use lattice_wire::NetMap;
use tokio::sync::{Notify, watch};

use crate::{
    Failure, Kind,
    failure::chain,
    gate,
    guide::Guide,
    heard::Heard,
    live::Live,
    resolver,
    settle::{next_expiry, settle},
};

/// The newest map, and what is kept in step with it.
pub(crate) struct Applier {
    pub(super) device: Arc<dyn Device>,
    names: lattice_dns::Names,
    pub(super) map: Arc<NetMap>,
    /// The same, for whoever asks.
    current: watch::Sender<Arc<NetMap>>,
    /// None on a node.
    live: Option<Arc<Mutex<Live>>>,
    /// Where the device finds paths.
    guide: Option<Guide>,
    /// Every word of the control plane.
    pub(super) heard: Heard,
    /// Rung when the map must be applied again, because of the host.
    again: Option<Arc<Notify>>,
    standing: Standing,
}

/// How the newest map was applied.
#[derive(Debug, Default)]
struct Standing {
    /// It could not be applied, and must be tried again.
    unsettled: bool,
    /// The peer's own time is over.
    over: bool,
    /// Unix seconds of the last application: whose time ends later is still to be dropped.
    applied_at: i64,
}

impl Applier {
    /// Of a map that is still to be applied. `current` tells it to others.
    pub(crate) fn new(
        current: watch::Sender<Arc<NetMap>>,
        device: Arc<dyn Device>,
        names: lattice_dns::Names,
        live: Option<Arc<Mutex<Live>>>,
        guide: Option<Guide>,
        heard: Heard,
    ) -> Self {
        let again = live.as_ref().map(|live| live.lock().unwrap_or_else(PoisonError::into_inner).again());
        let map = current.borrow().clone();
        Self { device, names, map, current, live, guide, heard, again, standing: Standing::default() }
    }

    /// What is due from time to time: ends what is over by itself, and tries again what failed.
    pub(super) async fn tick(&mut self, told: &mut bool) {
        self.watch_device(told).await;
        if let Some(live) = self.live.clone() {
            let _panicked = tokio::task::spawn_blocking(move || gate::expire(&live)).await;
        }
        // It was applied in the future where a clock that was ahead has been put right.
        if self.standing.unsettled || self.standing.applied_at > self.heard.now() {
            self.reapply().await;
        }
    }

    /// The outcome of `asked`, whose answer may be long in coming. Meanwhile the map is applied again whenever that is due.
    pub(super) async fn meanwhile<T>(&mut self, asked: impl Future<Output = T>) -> T {
        let mut asked = pin!(asked);
        loop {
            let (expiry, rung) = (self.until_expiry(), self.rung());
            tokio::select! {
                answer = &mut asked => return answer,
                () = tokio::time::sleep(expiry) => self.reapply().await,
                () = rung => self.reapply().await,
            }
        }
    }

    /// Ready when the host has changed; never on a node.
    pub(super) fn rung(&self) -> impl Future<Output = ()> + use<> {
        let bell = self.again.clone();
        async move {
            match bell {
                Some(bell) => bell.notified().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Time until somebody's time is over; an hour when nobody's will be. Nothing when it happened unnoticed: while a host
    /// sleeps, its clock goes on and timers do not.
    pub(super) fn until_expiry(&self) -> Duration {
        let next = next_expiry(&self.map, self.standing.applied_at);
        let left = next.map_or(3600, |at| at.saturating_sub(self.heard.now()));
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }

    /// A device that is gone drops every packet; without this nobody would be told why.
    async fn watch_device(&self, told: &mut bool) {
        let device = self.device.clone();
        let Ok(Err(error)) = tokio::task::spawn_blocking(move || device.peers()).await else { return };
        if !std::mem::replace(told, true) {
            tracing::error!(error = %chain(&error), "the overlay is gone; packets are dropped until the next start");
        }
    }

    pub(super) async fn reapply(&mut self) {
        if let Err(error) = self.apply().await {
            tracing::warn!(%error, generation = self.map.generation, "cannot apply the network map");
        }
    }

    pub(super) async fn apply(&mut self) -> Result<(), Failure> {
        let now = self.heard.now();
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
}
