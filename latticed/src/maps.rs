//! Keeps the network maps of peers new: tells those that are there what has changed, and answers those that ask.
//!
//! A push is a hint that may be lost, and any latticed of several may send it. So it says since which generation it tells the
//! news; a peer whose map is older asks, which every peer does from time to time anyway.

mod class;
mod compose;
mod held;
mod sight;
mod view;

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use lattice_wire::{MapRequest, MapUpdate, NetMap, PeerId, WorkspaceId, message::MAX_MESSAGE, subject};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{sleep, sleep_until},
};
use tracing::{debug, error};

use crate::{
    app::{App, now},
    limit::RateLimiter,
    store::StoreError,
};
use held::Held;
use view::Receiver;
#[cfg(test)]
pub use view::View;

/// Between two pushes: what changes within this time after one goes with the next.
const DEBOUNCE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(1);
/// Answers with a map, or with what is new, that one peer gets in a row and per second. A peer needs one at its start and one for
/// each push that it missed.
const ANSWERS_BURST: u32 = 20;
const ANSWERS_PER_SECOND: f64 = 0.5;
const ANSWERED: usize = 20_000;
/// Peers between two of which requests are answered.
const BATCH: usize = 32;

/// The workspaces that are held in memory, and those whose maps have changed since they were last pushed.
#[derive(Debug)]
pub struct Maps {
    changed: Mutex<Vec<WorkspaceId>>,
    wake: Notify,
    answers: RateLimiter<PeerId>,
    held: Held,
}

impl Default for Maps {
    fn default() -> Self {
        let answers = RateLimiter::new(ANSWERS_BURST, ANSWERS_PER_SECOND, ANSWERED);
        Self { changed: Mutex::default(), wake: Notify::new(), answers, held: Held::default() }
    }
}

/// Why a peer that asks gets no map.
#[derive(Debug, thiserror::Error)]
pub enum NoMap {
    /// There is no such peer.
    #[error("no such peer")]
    Unknown,
    /// It asks too often for what it says it does not have.
    #[error("too many network maps were asked for: wait {} s", .0.as_secs() + 1)]
    TooOften(Duration),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Maps {
    /// The maps of `workspace` are newer than what its peers were told.
    pub fn changed(&self, workspace: WorkspaceId) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if !changed.contains(&workspace) {
            changed.push(workspace);
        }
        drop(changed);
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<WorkspaceId> {
        mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Pushes what has changed, for ever.
pub async fn push(app: &App) {
    let mut last = None;
    loop {
        app.maps.wake.notified().await;
        // A change that comes alone does not wait: it may take rights away.
        if let Some(at) = last {
            sleep_until(at + DEBOUNCE).await;
        }
        last = Some(tokio::time::Instant::now());
        for workspace in app.maps.take() {
            let (began, worked) = (Instant::now(), processor_time());
            let pushed = push_workspace(app, &workspace).await;
            app.metrics.pushed(began.elapsed());
            // Peers that come and move all the time make the maps new all the time: whatever they do, three quarters of the
            // processor are left for others. Not of the time: on a busy host a push that took little work may take long, and the
            // next one would wait three times as long.
            sleep(processor_time().saturating_sub(worked) * 3).await;
            if let Err(error) = pushed {
                error!(%workspace, %error, "network maps could not be read; trying again");
                app.maps.changed(workspace);
                sleep(RETRY).await;
            }
        }
    }
}

/// What this thread, which is all of latticed but the database's, has had of the processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

async fn push_workspace(app: &App, workspace: &WorkspaceId) -> Result<(), StoreError> {
    let now = now();
    let slot = app.maps.held.slot(workspace);
    let plan = {
        let mut view = slot.lock().await;
        held::refresh(&mut view, &app.store, None, now).await?;
        view.plan(now)
    };
    let mut pushed = 0;
    // Most receivers of a class are told the same, word for word.
    let mut alike: BTreeMap<usize, Bytes> = BTreeMap::new();
    for batch in plan.receivers.chunks(BATCH) {
        yield_now().await;
        let mut payloads = Vec::with_capacity(batch.len());
        {
            let view = slot.lock().await;
            if !view.follows(&plan) {
                app.maps.changed(workspace.clone());
                return Ok(());
            }
            for (id, receiver) in batch {
                let known = match receiver {
                    Receiver::Alike(class) => alike.get(class).cloned(),
                    _ => None,
                };
                let payload = match known {
                    Some(payload) => Some(payload),
                    None => view.update_for(id, *receiver, now).as_ref().and_then(encode),
                };
                let Some(payload) = payload else { continue };
                if let Receiver::Alike(class) = receiver {
                    alike.entry(*class).or_insert_with(|| payload.clone());
                }
                payloads.push((id, payload));
            }
        }
        for (id, payload) in payloads {
            if let Err(error) = app.nats.publish(subject::config(id), payload).await {
                debug!(%error, "push lost; peers will ask for their maps");
                return Ok(());
            }
            pushed += 1;
        }
    }
    let mut view = slot.lock().await;
    if view.follows(&plan) {
        view.told(&plan);
    } else {
        app.maps.changed(workspace.clone());
    }
    debug!(%workspace, pushed, "network maps pushed");
    Ok(())
}

/// What a peer that asks is answered.
///
/// # Errors
/// When the database fails, there is no such peer, or it asks too often.
pub async fn answer(app: &App, id: &PeerId, request: MapRequest) -> Result<MapUpdate, NoMap> {
    let now = now();
    let own = app.store.standing(id, now).await?.ok_or(NoMap::Unknown)?;
    if request.have == Some(own.version) {
        return Ok(MapUpdate::Current);
    }
    app.maps.answers.take(id, Instant::now()).map_err(NoMap::TooOften)?;
    let slot = app.maps.held.slot(&own.workspace);
    let mut view = slot.lock().await;
    held::refresh(&mut view, &app.store, Some(own.version), now).await?;
    view.answer(id, request.have, now).ok_or(NoMap::Unknown)
}

/// The whole map of one peer.
///
/// # Errors
/// When the database fails.
pub async fn whole(app: &App, workspace: &WorkspaceId, id: &PeerId) -> Result<Option<NetMap>, StoreError> {
    let now = now();
    let slot = app.maps.held.slot(workspace);
    let mut view = slot.lock().await;
    held::refresh(&mut view, &app.store, None, now).await?;
    Ok(view.netmap(id, now))
}

/// The JSON of an update; none when it is too big to send, and then the receiver asks.
fn encode(update: &MapUpdate) -> Option<Bytes> {
    match serde_json::to_vec(update) {
        Ok(payload) if payload.len() <= MAX_MESSAGE => Some(payload.into()),
        Ok(payload) => {
            error!(bytes = payload.len(), "network map is too big to send: use fewer policies or peers");
            None
        }
        Err(error) => {
            error!(%error, "network map cannot be encoded");
            None
        }
    }
}
