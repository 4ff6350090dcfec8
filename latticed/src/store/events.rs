//! Security events: what an operator wants to read afterwards. Only so many are kept.

use lattice_wire::WorkspaceId;
use sqlx::{AnyConnection, FromRow, Row as _, any::AnyRow};

use super::{Page, Store, StoreError, columns::maybe};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Where it happened, when it was in one workspace.
    pub workspace: Option<WorkspaceId>,
    /// What, as a word.
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// The rest, for people. No secrets.
    pub detail: String,
}

/// Something that happened, as it was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Grows with every event. The key of their pages.
    pub seq: i64,
    /// Unix seconds.
    pub at: i64,
    /// What.
    pub event: NewEvent,
}

impl Store {
    /// Writes an event down.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_event(&self, event: &NewEvent, now: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        insert(&mut transaction, event, now).await?;
        Ok(transaction.commit().await?)
    }

    /// The events of a workspace, or all, newest first. A page begins before the `seq` that it names, and is empty when that is no number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events(
        &self,
        workspace: Option<&WorkspaceId>,
        page: &Page,
    ) -> Result<Vec<EventRow>, StoreError> {
        let before = page.after.as_ref().map_or(i64::MAX, |after| after.parse().unwrap_or(0));
        let select = "SELECT * FROM events WHERE ($1 IS NULL OR workspace = $1) AND seq < $2 \
                      ORDER BY seq DESC LIMIT $3";
        Ok(sqlx::query_as(select)
            .bind(workspace.map(WorkspaceId::as_str))
            .bind(before)
            .bind(page.rows())
            .fetch_all(&self.read)
            .await?)
    }

    /// Forgets all but the newest `keep` events of each workspace, and of what happened in none: who causes many events in one
    /// workspace makes no other forget.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune_events(&self, keep: u32) -> Result<(), StoreError> {
        let crowded = "SELECT workspace FROM events GROUP BY workspace HAVING count(*) > $1";
        let crowded = sqlx::query(crowded).bind(i64::from(keep)).fetch_all(&self.read).await?;
        for row in crowded {
            let workspace: Option<String> = row.try_get("workspace")?;
            let delete = "DELETE FROM events WHERE coalesce(workspace, '') = $1 AND seq <= \
                          (SELECT seq FROM events WHERE coalesce(workspace, '') = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2)";
            let mut transaction = self.begin().await?;
            sqlx::query(delete)
                .bind(workspace.unwrap_or_default())
                .bind(i64::from(keep))
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}

impl FromRow<'_, AnyRow> for EventRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            seq: row.try_get("seq")?,
            at: row.try_get("at")?,
            event: NewEvent {
                workspace: maybe(row, "workspace")?,
                kind: row.try_get("kind")?,
                actor: row.try_get("actor")?,
                detail: row.try_get("detail")?,
            },
        })
    }
}

/// Writes an event down within the transaction of what it tells.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    event: &NewEvent,
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO events (at, workspace, kind, actor, detail) VALUES ($1, $2, $3, $4, $5)")
        .bind(now)
        .bind(event.workspace.as_ref().map(WorkspaceId::as_str))
        .bind(event.kind.as_str())
        .bind(event.actor.as_str())
        .bind(event.detail.as_str())
        .execute(connection)
        .await
        .map(drop)
}
