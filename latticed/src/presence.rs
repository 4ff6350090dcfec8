//! Who was heard from, and the reconciler that marks the silent offline.
//!
//! Heartbeats are kept in memory and written down together, because a heartbeat that says nothing new is not worth a
//! transaction of its own.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lattice_wire::{
    PeerId,
    message::{HEARTBEAT_SECS, OFFLINE_SECS},
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::app::{App, now};

/// How often the silent are looked for: a peer is marked at most this much too late.
const EVERY: Duration = Duration::from_secs(HEARTBEAT_SECS / 6);

/// A clock that was set, or a host that slept, is ahead of what has passed by more than this.
const STEP: i64 = 5;

/// Heartbeats since they were last written down. Holds only peers that the database knew: hostile ids cost nothing.
#[derive(Debug, Default)]
pub struct Presence(Mutex<BTreeMap<PeerId, i64>>);

impl Presence {
    /// `id`, who is known, was heard from.
    pub fn heard(&self, id: &PeerId, now: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), now);
    }

    /// `id` is gone.
    pub fn forget(&self, id: &PeerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn take(&self) -> BTreeMap<PeerId, i64> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_back(&self, seen: BTreeMap<PeerId, i64>) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, at) in seen {
            current.entry(id).or_insert(at);
        }
    }
}

/// Writes down who was heard from and marks the silent offline, for ever. While latticed was away nobody could be
/// heard, so everybody gets the full time again from its start; and when the clock was set forward, because nobody has been silent
/// for as long as it now says.
pub async fn reconcile(app: &App) {
    let (mut started, mut last) = (Instant::now(), (Instant::now(), now()));
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let read = (Instant::now(), now());
        if is_step(last, read) {
            started = read.0;
        }
        last = read;
        if started.elapsed() >= Duration::from_secs(OFFLINE_SECS) {
            run_once(app, now() - OFFLINE_SECS.cast_signed()).await;
        } else {
            run_once(app, i64::MIN).await;
        }
    }
}

/// Whether more Unix seconds went by than time.
fn is_step(before: (Instant, i64), after: (Instant, i64)) -> bool {
    let elapsed = i64::try_from((after.0 - before.0).as_secs()).unwrap_or(i64::MAX);
    after.1.saturating_sub(before.1) > elapsed.saturating_add(STEP)
}

/// Writes down who was heard from, and marks offline who was not since `cutoff`.
pub async fn run_once(app: &App, cutoff: i64) {
    let seen = app.presence.take();
    match app.store.expire_presence(&seen, cutoff, now()).await {
        Ok(workspaces) => {
            for workspace in workspaces {
                info!(%workspace, "peers went offline");
                app.maps.changed(workspace);
            }
        }
        Err(error) => {
            error!(%error, "presence could not be written; trying again");
            app.presence.put_back(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_from_a_long_wait() {
        let start = Instant::now();
        let later = start + Duration::from_secs(100);
        for (now, expected) in [(1_100, false), (1_105, false), (1_107, true), (4_700, true), (1_050, false)]
        {
            assert_eq!(is_step((start, 1_000), (later, now)), expected, "{now}");
        }
    }
}
