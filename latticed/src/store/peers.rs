//! Peers: who they are and what is said of them.

use std::net::Ipv6Addr;

use lattice_policy::overlay;
use lattice_wire::{PeerId, PeerName, WgPublicKey, WorkspaceId};
use sqlx::{FromRow, Row as _, any::AnyRow};

pub use super::columns::{Address, Endpoints, Kind, Labels, Prefix};
use super::{
    Page, Store, StoreError,
    columns::{self, flag, json, maybe, text},
    leases,
    workspaces::{self, Change},
};

/// A peer that has not been removed, with its lease.
#[derive(Debug, Clone)]
pub struct PeerRow {
    /// Its id.
    pub id: PeerId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its name.
    pub name: PeerName,
    /// What it is.
    pub kind: Kind,
    /// Its WireGuard key. `None` while it is reserved.
    pub wireguard_public_key: Option<WgPublicKey>,
    /// Its NATS user key. `None` while it is reserved, and when it does not use NATS.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests of the store look at it"))]
    pub nats_public_key: Option<String>,
    /// Where it may be reached.
    pub endpoints: Endpoints,
    /// Whether it has been heard from lately.
    pub online: bool,
    /// Unix seconds.
    pub last_seen: i64,
    /// Unix seconds.
    pub created_at: i64,
    /// Its preset.
    pub preset: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// What kind of agent runs in it.
    pub agent_type: Option<String>,
    /// Seconds that a renewal gives it. `None`: it needs none.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests of the store look at it"))]
    pub ttl: Option<i64>,
    /// Unix seconds from which on it is no member any more.
    pub expires_at: Option<i64>,
    /// The token that admitted it.
    pub token: Option<String>,
    /// No JWT of it is valid after this. Unix seconds.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests of the store look at it"))]
    pub jwt_expires_at: Option<i64>,
    /// Its overlay address.
    pub address: Address,
    /// That of its workspace, in which it has an address too.
    pub prefix: Prefix,
}

/// Who a member is, to others than latticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its WireGuard key.
    pub wireguard_public_key: WgPublicKey,
    /// Its NATS user key. `None` when it does not use NATS.
    pub nats_public_key: Option<String>,
    /// Unix seconds from which on it is no member any more. `None`: it has no end.
    pub not_after: Option<i64>,
}

/// How many peers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCounts {
    /// Heard from lately.
    pub online: i64,
    /// Not heard from lately.
    pub offline: i64,
    /// Not there yet.
    pub reserved: i64,
}

impl Store {
    /// How many peers there are, in all workspaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn peer_counts(&self) -> Result<PeerCounts, StoreError> {
        let select = "SELECT count(CASE WHEN wireguard_public_key IS NOT NULL AND online = 1 THEN 1 END), \
                             count(CASE WHEN wireguard_public_key IS NOT NULL AND online = 0 THEN 1 END), \
                             count(CASE WHEN wireguard_public_key IS NULL THEN 1 END) \
                      FROM peers WHERE removed_at IS NULL";
        let (online, offline, reserved) = sqlx::query_as(select).fetch_one(&self.read).await?;
        Ok(PeerCounts { online, offline, reserved })
    }

    /// One peer, also a reserved one, and one that is over and waits to be removed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn peer(&self, id: &PeerId) -> Result<Option<PeerRow>, StoreError> {
        let select = "SELECT peers.*, leases.address, workspaces.prefix FROM peers \
                        JOIN leases ON leases.peer = peers.id JOIN workspaces ON workspaces.id = peers.workspace \
                      WHERE peers.removed_at IS NULL AND peers.id = $1";
        Ok(sqlx::query_as(select).bind(id.as_str()).fetch_optional(&self.read).await?)
    }

    /// Who the member `id` is. `None` when there is no such peer, it is not there yet, or its time is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn member(&self, id: &PeerId, now: i64) -> Result<Option<Member>, StoreError> {
        let select = "SELECT workspace, wireguard_public_key, nats_public_key, expires_at FROM members \
                      WHERE id = $1 AND (expires_at IS NULL OR expires_at > $2)";
        let row = sqlx::query(select).bind(id.as_str()).bind(now).fetch_optional(&self.read).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Member {
            workspace: text(&row, "workspace")?,
            wireguard_public_key: text(&row, "wireguard_public_key")?,
            nats_public_key: row.try_get("nats_public_key")?,
            not_after: row.try_get("expires_at")?,
        }))
    }

    /// The peers of a workspace, or of all, by id; also those that [`Store::peer`] shows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn peers(
        &self,
        workspace: Option<&WorkspaceId>,
        page: &Page,
    ) -> Result<Vec<PeerRow>, StoreError> {
        let select = "SELECT peers.*, leases.address, workspaces.prefix FROM peers \
                        JOIN leases ON leases.peer = peers.id JOIN workspaces ON workspaces.id = peers.workspace \
                      WHERE peers.removed_at IS NULL AND ($1 IS NULL OR peers.workspace = $1) \
                        AND ($2 IS NULL OR peers.id > $2) ORDER BY peers.id LIMIT $3";
        self.page(select, workspace, page).await
    }

    /// Gives a peer other labels. `None` when there is no such peer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_labels(&self, id: &PeerId, labels: &Labels) -> Result<Option<WorkspaceId>, StoreError> {
        let update = "UPDATE peers SET changed = NULL, labels = $2 WHERE id = $1 AND removed_at IS NULL RETURNING workspace";
        let mut transaction = self.begin().await?;
        let changed = sqlx::query(update)
            .bind(id.as_str())
            .bind(columns::labels(labels)?)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = changed else { return Ok(None) };
        let workspace = text(&row, "workspace")?;
        workspaces::bump(&mut transaction, &workspace, Change::Rules).await?;
        transaction.commit().await?;
        Ok(Some(workspace))
    }

    /// Removes a peer: its name and its keys are free again, its address rests. `None` when there is no such peer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_peer(&self, id: &PeerId, now: i64) -> Result<Option<WorkspaceId>, StoreError> {
        let update = "UPDATE peers SET changed = NULL, online = 0, endpoints = '[]', removed_at = $2 \
                      WHERE id = $1 AND removed_at IS NULL RETURNING workspace";
        let mut transaction = self.begin().await?;
        let removed =
            sqlx::query(update).bind(id.as_str()).bind(now).fetch_optional(&mut *transaction).await?;
        let Some(row) = removed else { return Ok(None) };
        let workspace = text(&row, "workspace")?;
        leases::release(&mut transaction, id, now + self.quarantine).await?;
        workspaces::bump(&mut transaction, &workspace, Change::Peers).await?;
        transaction.commit().await?;
        Ok(Some(workspace))
    }

    /// Says that a JWT of this peer is valid until `at`. One that lives longer is remembered further.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_jwt_expiry(&self, id: &PeerId, at: i64) -> Result<(), StoreError> {
        let update = "UPDATE peers SET jwt_expires_at = $2 \
                      WHERE id = $1 AND (jwt_expires_at IS NULL OR jwt_expires_at < $2)";
        let mut transaction = self.begin().await?;
        sqlx::query(update).bind(id.as_str()).bind(at).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// The NATS users of removed peers with a JWT that is not over yet, and when they were removed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoked_users(&self, now: i64) -> Result<Vec<(String, i64)>, StoreError> {
        let select = "SELECT nats_public_key, removed_at FROM peers \
                      WHERE removed_at IS NOT NULL AND jwt_expires_at > $1 AND nats_public_key IS NOT NULL";
        Ok(sqlx::query_as(select).bind(now).fetch_all(&self.read).await?)
    }
}

impl PeerRow {
    /// Its IPv6 address.
    pub fn address6(&self) -> Ipv6Addr {
        overlay::in_prefix(self.prefix.0, self.address.0)
    }
}

impl FromRow<'_, AnyRow> for PeerRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: text(row, "id")?,
            workspace: text(row, "workspace")?,
            name: text(row, "name")?,
            kind: text(row, "kind")?,
            wireguard_public_key: maybe(row, "wireguard_public_key")?,
            nats_public_key: row.try_get("nats_public_key")?,
            endpoints: text(row, "endpoints")?,
            online: flag(row, "online")?,
            last_seen: row.try_get("last_seen")?,
            created_at: row.try_get("created_at")?,
            preset: row.try_get("preset")?,
            labels: json(row, "labels")?,
            agent_type: row.try_get("agent_type")?,
            ttl: row.try_get("ttl")?,
            expires_at: row.try_get("expires_at")?,
            token: row.try_get("token")?,
            jwt_expires_at: row.try_get("jwt_expires_at")?,
            address: Address::column(row)?,
            prefix: text(row, "prefix")?,
        })
    }
}
