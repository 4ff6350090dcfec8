//! Peers that live for a time: renewal, and removal at its end.
//!
//! Nothing waits for the removal: from its last second on a peer is treated as unknown wherever it asks, and is in no map.

use std::collections::BTreeSet;

use lattice_wire::{PeerId, PeerName, WorkspaceId};
use sqlx::Row as _;

use super::{
    Store, StoreError,
    columns::{maybe, text},
    leases,
    workspaces::{self, Change},
};

/// A peer that was renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Unix seconds from which on it is no member any more. `None`: it has no end.
    pub not_after: Option<i64>,
    /// Its NATS user key, when it has one.
    pub nats_public_key: Option<String>,
    /// Its name.
    pub name: PeerName,
    /// Its workspace, whose maps are newer now when `not_after` is set.
    pub workspace: WorkspaceId,
}

impl Store {
    /// Gives a peer its time again. `None` when there is no such peer, or it is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew(&self, id: &PeerId, now: i64) -> Result<Option<Renewed>, StoreError> {
        let update = "UPDATE peers SET changed = CASE WHEN ttl IS NULL THEN changed END, \
                             expires_at = CASE WHEN ttl IS NULL THEN expires_at ELSE $2 + ttl END \
                      WHERE id = $1 AND removed_at IS NULL AND wireguard_public_key IS NOT NULL \
                        AND (expires_at IS NULL OR expires_at > $2) \
                      RETURNING expires_at, nats_public_key, name, workspace";
        let mut transaction = self.begin().await?;
        let renewed =
            sqlx::query(update).bind(id.as_str()).bind(now).fetch_optional(&mut *transaction).await?;
        let Some(row) = renewed else { return Ok(None) };
        let renewed = Renewed {
            not_after: row.try_get("expires_at")?,
            nats_public_key: maybe(&row, "nats_public_key")?,
            name: text(&row, "name")?,
            workspace: text(&row, "workspace")?,
        };
        if renewed.not_after.is_some() {
            workspaces::bump(&mut transaction, &renewed.workspace, Change::Peers).await?;
        }
        transaction.commit().await?;
        Ok(Some(renewed))
    }

    /// Removes the peers whose time is over, reserved ones too. Whoever runs it first gets them, nobody gets one twice.
    ///
    /// # Errors
    /// When the database fails; then nothing is removed.
    pub async fn expire_peers(&self, now: i64) -> Result<Vec<(PeerId, WorkspaceId)>, StoreError> {
        let over = "SELECT id FROM peers WHERE removed_at IS NULL AND expires_at <= $1 LIMIT 1";
        if sqlx::query(over).bind(now).fetch_optional(&self.read).await?.is_none() {
            return Ok(vec![]);
        }
        let update = "UPDATE peers SET changed = NULL, online = 0, endpoints = '[]', removed_at = $1 \
                      WHERE removed_at IS NULL AND expires_at <= $1 RETURNING id, workspace";
        let mut transaction = self.begin().await?;
        let rows = sqlx::query(update).bind(now).fetch_all(&mut *transaction).await?;
        let removed: Vec<(PeerId, WorkspaceId)> = rows
            .iter()
            .map(|row| Ok((text(row, "id")?, text(row, "workspace")?)))
            .collect::<Result<_, sqlx::Error>>()?;
        for (peer, _) in &removed {
            leases::release(&mut transaction, peer, now + self.quarantine).await?;
        }
        for workspace in removed.iter().map(|(_, workspace)| workspace).collect::<BTreeSet<_>>() {
            workspaces::bump(&mut transaction, workspace, Change::Peers).await?;
        }
        transaction.commit().await?;
        Ok(removed)
    }
}
