//! Whom NATS must refuse.

use super::{Store, StoreError};
use crate::nats::PEER_TTL;

impl Store {
    /// The NATS keys of removed peers whose JWTs may not have ended yet at `now`, each with the time of the removal.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoked_users(&self, now: i64) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query_as("SELECT nats_public_key, removed_at FROM peers WHERE removed_at > ?")
            .bind(now.saturating_sub(PEER_TTL))
            .fetch_all(&self.read)
            .await?;
        Ok(rows)
    }
}
