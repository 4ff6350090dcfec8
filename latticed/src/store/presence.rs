//! Presence: who is there and where it may be reached. Most of what peers say is nothing new, and costs a read.

use std::collections::{BTreeMap, BTreeSet};

use lattice_wire::{PeerId, WorkspaceId};
use sqlx::{AnyConnection, AssertSqlSafe};

use super::{
    Store, StoreError,
    columns::{Endpoints, text},
    workspaces::{self, Change},
};

/// Heartbeats that one statement writes down: few statements, each far below what either database takes.
const CHUNK: usize = 500;

/// What a heartbeat changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// There is no such peer.
    Unknown,
    /// Nothing that another peer would see.
    Same,
    /// It came back or moved: the maps of this workspace are newer now.
    Changed(WorkspaceId),
}

impl Store {
    /// Records that `id` is there and may be reached at `endpoints`. When neither is news, only reads.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn heard(&self, id: &PeerId, endpoints: &Endpoints, now: i64) -> Result<Heard, StoreError> {
        let known: Option<(i64, String)> = sqlx::query_as(
            "SELECT online, endpoints FROM members WHERE id = $1 AND (expires_at IS NULL OR expires_at > $2)",
        )
        .bind(id.as_str())
        .bind(now)
        .fetch_optional(&self.read)
        .await?;
        let endpoints = endpoints.to_json();
        match known {
            None => return Ok(Heard::Unknown),
            Some((1, same)) if same == endpoints => return Ok(Heard::Same),
            Some(_) => {}
        }
        let changed = self.move_peer(id, 1, &endpoints, now).await?;
        Ok(changed.map_or(Heard::Unknown, Heard::Changed))
    }

    /// Marks a peer as gone: it keeps its identity and its lease. `None` when there is no such peer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn leave(&self, id: &PeerId, now: i64) -> Result<Option<WorkspaceId>, StoreError> {
        self.move_peer(id, 0, "[]", now).await
    }

    async fn move_peer(
        &self,
        id: &PeerId,
        online: i64,
        endpoints: &str,
        now: i64,
    ) -> Result<Option<WorkspaceId>, StoreError> {
        let update = "UPDATE peers SET changed = NULL, online = $2, endpoints = $3, last_seen = $4 \
                      WHERE id = $1 AND removed_at IS NULL AND wireguard_public_key IS NOT NULL \
                        AND (expires_at IS NULL OR expires_at > $4) RETURNING workspace";
        let mut transaction = self.begin().await?;
        let moved = sqlx::query(update)
            .bind(id.as_str())
            .bind(online)
            .bind(endpoints)
            .bind(now)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = moved else { return Ok(None) };
        let workspace = text(&row, "workspace")?;
        workspaces::bump(&mut transaction, &workspace, Change::Peers).await?;
        transaction.commit().await?;
        Ok(Some(workspace))
    }

    /// Writes down when peers were heard from, then marks those offline that were not heard from since `cutoff`: not those without a
    /// NATS key, who never say anything and may be there all the same. When the
    /// clock was set back, whoever was heard from in what is the future now counts as heard from now. Returns the workspaces whose maps are newer now.
    ///
    /// # Errors
    /// When the database fails; then nothing is written.
    pub async fn expire_presence(
        &self,
        seen: &BTreeMap<PeerId, i64>,
        cutoff: i64,
        now: i64,
    ) -> Result<BTreeSet<WorkspaceId>, StoreError> {
        let mut transaction = self.begin().await?;
        for chunk in seen.iter().collect::<Vec<_>>().chunks(CHUNK) {
            write_down(&mut transaction, chunk).await?;
        }
        sqlx::query("UPDATE peers SET last_seen = $1 WHERE online = 1 AND last_seen > $1")
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        let expired = sqlx::query(
            "UPDATE peers SET changed = NULL, online = 0 \
             WHERE online = 1 AND last_seen < $1 AND nats_public_key IS NOT NULL RETURNING workspace",
        )
        .bind(cutoff)
        .fetch_all(&mut *transaction)
        .await?;
        let workspaces: BTreeSet<_> =
            expired.iter().map(|row| text(row, "workspace")).collect::<Result<_, _>>()?;
        for workspace in &workspaces {
            workspaces::bump(&mut transaction, workspace, Change::Peers).await?;
        }
        transaction.commit().await?;
        Ok(workspaces)
    }
}

/// One statement for many peers. Its text holds nothing but numbers of parameters.
async fn write_down(connection: &mut AnyConnection, seen: &[(&PeerId, &i64)]) -> Result<(), sqlx::Error> {
    let rows: Vec<_> = (0..seen.len()).map(|n| format!("(${}, ${})", 2 * n + 1, 2 * n + 2)).collect();
    let update = format!(
        "UPDATE peers SET last_seen = seen.column2 FROM (VALUES {}) AS seen \
         WHERE peers.id = seen.column1 AND peers.last_seen < seen.column2 AND peers.removed_at IS NULL",
        rows.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(update)).persistent(seen.len() == CHUNK);
    for (id, at) in seen {
        query = query.bind(id.as_str()).bind(**at);
    }
    query.execute(connection).await.map(drop)
}
