//! Forgets what nobody needs any more, some at a time: a transaction that writes keeps all others waiting.

use lattice_wire::PeerId;

use super::{Store, StoreError, columns::text};

/// Rows of one transaction.
const BATCH: i64 = 200;

impl Store {
    /// Forgets peers that were removed at `before` or earlier, with their own tokens; not while their address rests or a JWT of them is valid. True
    /// when there may be more.
    ///
    /// # Errors
    /// When the database fails; then nothing is forgotten.
    pub async fn prune_peers(&self, before: i64, now: i64) -> Result<bool, StoreError> {
        let select = "SELECT id FROM peers WHERE removed_at <= $1 AND (jwt_expires_at IS NULL OR jwt_expires_at <= $2) \
                        AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.peer = peers.id AND (free_at IS NULL OR free_at > $2)) \
                      ORDER BY removed_at LIMIT $3";
        let rows = sqlx::query(select).bind(before).bind(now).bind(BATCH).fetch_all(&self.read).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let ids: Vec<PeerId> = rows.iter().map(|row| text(row, "id")).collect::<Result<_, _>>()?;
        // Nobody comes back who was removed, so what was read is still true.
        let mut transaction = self.begin().await?;
        for id in &ids {
            for delete in [
                "DELETE FROM leases WHERE peer = $1 AND free_at IS NOT NULL",
                "DELETE FROM peers WHERE id = $1 AND removed_at IS NOT NULL",
                "DELETE FROM tokens WHERE peer = $1",
            ] {
                sqlx::query(delete).bind(id.as_str()).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(rows.len() as i64 == BATCH)
    }

    /// Forgets requests that cannot be repeated any more. True when there may be more.
    ///
    /// # Errors
    /// When the database fails; then nothing is forgotten.
    pub async fn prune_repeatable(&self, now: i64) -> Result<bool, StoreError> {
        let over = "SELECT key FROM repeatable WHERE ends_at <= $1 LIMIT 1";
        if sqlx::query(over).bind(now).fetch_optional(&self.read).await?.is_none() {
            return Ok(false);
        }
        let delete = "DELETE FROM repeatable WHERE (workspace, caller, key) IN \
                      (SELECT workspace, caller, key FROM repeatable WHERE ends_at <= $1 LIMIT $2)";
        let mut transaction = self.begin().await?;
        let deleted = sqlx::query(delete).bind(now).bind(BATCH).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(deleted.rows_affected() == BATCH.cast_unsigned())
    }
}
