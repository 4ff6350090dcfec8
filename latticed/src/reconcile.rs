//! Ends memberships and policies whose time is over, and forgets what is long gone.
//!
//! Everything here may be done twice, and by several latticed at once, without harm. What is over counts as over before it is
//! removed, so nothing waits for this but the maps of the others, which carry the time themselves.

use std::time::Duration;

use tokio::{
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info};

use crate::{
    app::{App, now},
    store::StoreError,
};

/// At least this often.
const EVERY: Duration = Duration::from_secs(60);
/// Security events that are kept of each workspace.
const EVENTS: u32 = 20_000;

/// Batches of one round, of each kind. What is left waits a minute, and others write in between.
const BATCHES: usize = 50;

/// Reconciles each minute, for ever. Removed peers are kept for `keep` seconds.
pub async fn run(app: &App, keep: i64) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = run_once(app, keep).await {
            error!(%error, "not everything that is over could be ended; trying again within a minute");
        }
    }
}

/// One round.
///
/// # Errors
/// When the database fails; what is left is done in the next round.
pub async fn run_once(app: &App, keep: i64) -> Result<(), StoreError> {
    let now = now();
    for (peer, workspace) in app.store.expire_peers(now).await? {
        app.presence.forget(&peer);
        app.event("peer.expired", Some(&workspace), "latticed".into(), peer.to_string()).await;
        app.maps.changed(workspace);
    }
    for workspace in app.store.expire_policies(now).await? {
        info!(%workspace, "policies are over");
        app.maps.changed(workspace);
    }
    app.store.prune_events(EVENTS).await?;
    for _ in 0..BATCHES {
        if !app.store.prune_peers(now - keep, now).await? {
            break;
        }
        yield_now().await;
    }
    for _ in 0..BATCHES {
        if !app.store.prune_repeatable(now).await? {
            break;
        }
        yield_now().await;
    }
    Ok(())
}
