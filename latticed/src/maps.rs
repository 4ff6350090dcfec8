//! Keeps the network maps of peers new: tells those that are there what has changed, and answers those that ask.
//!
//! A push is a hint that may be lost, and any latticed of several may send it. So it says since which generation it tells the
//! news; a peer whose map is older asks, which every peer does from time to time anyway.

pub mod compose;

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use lattice_wire::{
    MapDelta, MapPolicy, MapRequest, MapUpdate, MapVersion, PeerId, WorkspaceId, message::MAX_MESSAGE,
    subject,
};
use tokio::{sync::Notify, task::yield_now, time::sleep};
use tracing::{debug, error};

use crate::{
    app::{App, now},
    limit::RateLimiter,
    store::{
        StoreError,
        netmap::{News, Snapshot},
    },
};
use compose::{Composer, Policies};

/// A burst of changes within this time becomes one push.
const DEBOUNCE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(1);
/// Answers with a map, or with what is new, that one peer gets in a row and per second: each is read and composed anew, from all of
/// the workspace. A peer needs one at its start and one for each push that it missed.
const ANSWERS_BURST: u32 = 20;
const ANSWERS_PER_SECOND: f64 = 0.5;
const ANSWERED: usize = 20_000;
/// Peers between two of which requests are answered.
const BATCH: usize = 32;

/// The workspaces whose maps have changed since they were last pushed, and how new those pushes were.
#[derive(Debug)]
pub struct Maps {
    state: Mutex<State>,
    wake: Notify,
    answers: RateLimiter<PeerId>,
}

impl Default for Maps {
    fn default() -> Self {
        let answers = RateLimiter::new(ANSWERS_BURST, ANSWERS_PER_SECOND, ANSWERED);
        Self { state: Mutex::default(), wake: Notify::new(), answers }
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

#[derive(Debug, Default)]
struct State {
    changed: Vec<WorkspaceId>,
    /// What the last push of each workspace that had one led to.
    pushed: BTreeMap<WorkspaceId, MapVersion>,
}

impl Maps {
    /// The maps of `workspace` are newer than what its peers were told.
    pub fn changed(&self, workspace: WorkspaceId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.changed.contains(&workspace) {
            state.changed.push(workspace);
        }
        drop(state);
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<WorkspaceId> {
        mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).changed)
    }

    fn pushed(&self, workspace: &WorkspaceId) -> Option<MapVersion> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pushed.get(workspace).copied()
    }

    fn set_pushed(&self, workspace: WorkspaceId, version: MapVersion) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pushed.insert(workspace, version);
    }
}

/// Pushes what has changed, for ever.
pub async fn push(app: &App) {
    loop {
        app.maps.wake.notified().await;
        sleep(DEBOUNCE).await;
        for workspace in app.maps.take() {
            let began = Instant::now();
            let pushed = push_workspace(app, &workspace).await;
            app.metrics.pushed(began.elapsed());
            // Peers that come and move all the time make the maps new all the time: whatever they do, three quarters of the time are
            // left for others.
            sleep(began.elapsed() * 3).await;
            if let Err(error) = pushed {
                error!(%workspace, %error, "network maps could not be read; trying again");
                app.maps.changed(workspace);
                sleep(RETRY).await;
            }
        }
    }
}

async fn push_workspace(app: &App, workspace: &WorkspaceId) -> Result<(), StoreError> {
    let now = now();
    let before = app.maps.pushed(workspace);
    let news = app.store.news(workspace, before, now).await?;
    if before == Some(news.version) {
        return Ok(());
    }
    let snapshot = if news.rules { Some(app.store.snapshot(workspace, now).await?) } else { None };
    let policies = snapshot.as_ref().map(Policies::of);
    let mut composer = snapshot
        .as_ref()
        .zip(policies.as_ref())
        .map(|(snapshot, policies)| Composer::new(snapshot, policies));
    let mut pushed = 0;
    // Most receivers are told the same, word for word.
    let mut common: Option<Bytes> = None;
    for (id, not_after) in &news.receivers {
        if pushed % BATCH == 0 {
            yield_now().await;
        }
        let policy = composer.as_mut().map(|composer| composer.policy(id));
        let payload = match (&common, not_after, &policy) {
            (Some(payload), None, None) => payload.clone(),
            _ => {
                let is_common = not_after.is_none() && policy.is_none();
                let Some(payload) = encode(&MapUpdate::Delta(delta(&news, *not_after, policy))) else {
                    continue;
                };
                if is_common {
                    common = Some(payload.clone());
                }
                payload
            }
        };
        if let Err(error) = app.nats.publish(subject::config(id), payload).await {
            debug!(%error, "push lost; peers will ask for their maps");
            return Ok(());
        }
        pushed += 1;
    }
    app.maps.set_pushed(workspace.clone(), news.version);
    debug!(%workspace, pushed, generation = news.version.generation, "network maps pushed");
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
    match request.have {
        Some(have) if have.epoch == own.version.epoch && have.generation < own.version.generation => {
            let news = app.store.news(&own.workspace, Some(have), now).await?;
            if !news.is_most() {
                let policy = match news.rules {
                    true => Some(policy_of(&app.store.snapshot(&own.workspace, now).await?, id)),
                    false => None,
                };
                return Ok(MapUpdate::Delta(delta(&news, own.not_after, policy)));
            }
        }
        // Without a map, or with one of a history that a restored database does not know.
        _ => {}
    }
    let snapshot = app.store.snapshot(&own.workspace, now).await?;
    let mut map = snapshot.netmap(id).ok_or(NoMap::Unknown)?;
    map.policy = Some(policy_of(&snapshot, id));
    Ok(MapUpdate::Full(map))
}

fn policy_of(snapshot: &Snapshot, id: &PeerId) -> MapPolicy {
    let policies = Policies::of(snapshot);
    Composer::new(snapshot, &policies).policy(id)
}

/// What one receiver is told. It may be among those that have changed, and knows itself.
fn delta(news: &News, not_after: Option<i64>, policy: Option<MapPolicy>) -> MapDelta {
    MapDelta {
        epoch: news.version.epoch,
        since: news.since,
        generation: news.version.generation,
        changed: news.changed.clone(),
        removed: news.removed.clone(),
        not_after,
        policy,
    }
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
