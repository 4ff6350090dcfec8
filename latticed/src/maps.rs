//! Pushes changed network maps to the peers that are there.
//!
//! A push is a hint that may be lost: peers also ask for their map, and a map says how new it is.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lattice_wire::{WorkspaceId, message::MAX_MESSAGE, subject};
use tokio::{sync::Notify, task::yield_now, time::sleep};
use tracing::{debug, error};

use crate::{
    app::{App, now},
    store::StoreError,
};

/// A burst of changes within this time becomes one push.
const DEBOUNCE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(1);

/// The workspaces whose maps have changed since they were last pushed.
#[derive(Debug, Default)]
pub struct Maps {
    changed: Mutex<BTreeSet<WorkspaceId>>,
    wake: Notify,
}

impl Maps {
    /// The maps of `workspace` are newer than what its peers were told.
    pub fn changed(&self, workspace: WorkspaceId) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(workspace);
        self.wake.notify_one();
    }

    fn take(&self) -> BTreeSet<WorkspaceId> {
        mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
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
            // The maps of a workspace cost the square of its size, and a peer that moves all the time makes them new all
            // the time: whatever it does, half of the time is left for others.
            sleep(began.elapsed()).await;
            if let Err(error) = pushed {
                error!(%workspace, %error, "network maps could not be read; trying again");
                app.maps.changed(workspace);
                sleep(RETRY).await;
            }
        }
    }
}

async fn push_workspace(app: &App, workspace: &WorkspaceId) -> Result<(), StoreError> {
    let snapshot = app.store.snapshot(workspace, now()).await?;
    let mut pushed = 0;
    for map in snapshot.online().filter_map(|id| snapshot.netmap(id)) {
        // Requests are answered between two maps.
        yield_now().await;
        let payload = match serde_json::to_vec(&map) {
            Ok(payload) if payload.len() <= MAX_MESSAGE => payload,
            Ok(payload) => {
                error!(%workspace, bytes = payload.len(), "network map is too big to send: remove peers that are gone");
                return Ok(());
            }
            Err(error) => {
                error!(%workspace, %error, "network map cannot be encoded");
                return Ok(());
            }
        };
        if let Err(error) = app.nats.publish(subject::config(&map.peer), payload.into()).await {
            debug!(%error, "push lost; peers will ask for their maps");
            return Ok(());
        }
        pushed += 1;
    }
    debug!(%workspace, pushed, "network maps pushed");
    Ok(())
}
