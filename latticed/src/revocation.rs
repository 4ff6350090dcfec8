//! Keeps NATS's list of revoked users right: at once after a removal, when the connection is new, and each minute, so that a
//! server which missed it or another latticed's removal is caught up with.

use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use crate::app::App;

const EVERY: Duration = Duration::from_secs(60);
/// What failed is tried again this much later.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until it is dropped.
pub async fn keep(app: &App) {
    let mut wait = EVERY;
    loop {
        let _ = timeout(wait, app.revoker.due()).await;
        wait = match app.revoke().await {
            Ok(()) => EVERY,
            Err(error) => {
                warn!(%error, retry_in = ?RETRY, "revoked users");
                RETRY
            }
        };
    }
}
