//! Network maps, read from one snapshot: the generation always belongs to the peers and policies beside it.

use ipnet::{IpNet, Ipv4Net};
use lattice_wire::{MapPeer, NetMap, PeerId, WorkspaceId};
use sqlx::{AnyConnection, Row as _};

use super::{
    Store, StoreError,
    columns::{Address, text},
    peers::PeerRow,
    policies::{self, PolicyRow},
};
use crate::pool::Pool;

/// A workspace at one generation: what the maps of all its peers are made of.
#[derive(Debug)]
pub struct Snapshot {
    generation: u64,
    workspace: WorkspaceId,
    name: String,
    pool: Pool,
    /// With what others are told of each.
    members: Vec<(PeerRow, MapPeer)>,
    policies: Vec<PolicyRow>,
}

/// What has changed in a workspace since a generation that receivers have.
#[derive(Debug)]
pub struct News {
    /// Every change after this generation is in here.
    pub since: u64,
    /// The generation now.
    pub generation: u64,
    /// Whether the receivers' policies may be others than at `since`.
    pub rules: bool,
    /// Peers that are new or different.
    pub changed: Vec<MapPeer>,
    /// Peers that are gone.
    pub removed: Vec<PeerId>,
    /// Who is there to be told, and when its own time is over.
    pub receivers: Vec<(PeerId, Option<i64>)>,
}

/// Where a living peer belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// The generation of its maps.
    pub generation: u64,
    /// Unix seconds from which on it is no member any more.
    pub not_after: Option<i64>,
}

impl News {
    /// Whether the whole map would be smaller.
    pub fn is_most(&self) -> bool {
        self.changed.len() + self.removed.len() > 16 + self.receivers.len()
    }
}

impl Store {
    /// What has changed in `workspace` after generation `since`, or with the last change of all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn news(
        &self,
        workspace: &WorkspaceId,
        since: Option<u64>,
        now: i64,
    ) -> Result<News, StoreError> {
        let mut transaction = self.begin_read().await?;
        let (generation, membership, rules): (i64, i64, i64) =
            sqlx::query_as("SELECT generation, membership, rules FROM workspaces WHERE id = $1")
                .bind(workspace.as_str())
                .fetch_one(&mut *transaction)
                .await?;
        let since = since.unwrap_or(generation.cast_unsigned().saturating_sub(1));
        // Without a policy or a preset it means nothing to anybody's policy who is there.
        let rules = rules > since.cast_signed()
            || (membership > since.cast_signed() && has_rules(&mut transaction, workspace).await?);
        let changed: Vec<PeerRow> = sqlx::query_as(
            "SELECT * FROM members WHERE workspace = $1 AND changed > $2 \
               AND (expires_at IS NULL OR expires_at > $3) ORDER BY address",
        )
        .bind(workspace.as_str())
        .bind(since.cast_signed())
        .bind(now)
        .fetch_all(&mut *transaction)
        .await?;
        let removed = sqlx::query(
            "SELECT id FROM peers WHERE workspace = $1 AND changed > $2 AND removed_at IS NOT NULL",
        )
        .bind(workspace.as_str())
        .bind(since.cast_signed())
        .fetch_all(&mut *transaction)
        .await?;
        let receivers = sqlx::query(
            "SELECT id, expires_at FROM peers WHERE workspace = $1 AND online = 1 AND removed_at IS NULL \
               AND (expires_at IS NULL OR expires_at > $2)",
        )
        .bind(workspace.as_str())
        .bind(now)
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(News {
            since,
            generation: generation.cast_unsigned(),
            rules,
            changed: changed.into_iter().filter_map(map_peer).collect(),
            removed: removed.iter().map(|row| text(row, "id")).collect::<Result<_, _>>()?,
            receivers: receivers
                .iter()
                .map(|row| Ok((text(row, "id")?, row.try_get("expires_at")?)))
                .collect::<Result<_, sqlx::Error>>()?,
        })
    }

    /// Where a peer belongs; `None` when there is no such peer, or its time is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standing(&self, id: &PeerId, now: i64) -> Result<Option<Standing>, StoreError> {
        let row = sqlx::query(
            "SELECT workspaces.id AS workspace, generation, expires_at FROM members \
               JOIN workspaces ON workspaces.id = members.workspace \
             WHERE members.id = $1 AND (expires_at IS NULL OR expires_at > $2)",
        )
        .bind(id.as_str())
        .bind(now)
        .fetch_optional(&self.read)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Standing {
            workspace: text(&row, "workspace")?,
            generation: row.try_get::<i64, _>("generation").map(i64::cast_unsigned)?,
            not_after: row.try_get("expires_at")?,
        }))
    }

    /// The workspace as it is now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn snapshot(&self, workspace: &WorkspaceId, now: i64) -> Result<Snapshot, StoreError> {
        let mut transaction = self.begin_read().await?;
        let (generation, name): (i64, String) =
            sqlx::query_as("SELECT generation, name FROM workspaces WHERE id = $1")
                .bind(workspace.as_str())
                .fetch_one(&mut *transaction)
                .await?;
        let rows: Vec<PeerRow> = sqlx::query_as(
            "SELECT * FROM members WHERE workspace = $1 AND (expires_at IS NULL OR expires_at > $2) \
             ORDER BY address",
        )
        .bind(workspace.as_str())
        .bind(now)
        .fetch_all(&mut *transaction)
        .await?;
        let policies = policies::in_force(&mut transaction, workspace, now).await?;
        transaction.commit().await?;
        Ok(Snapshot {
            generation: generation.cast_unsigned(),
            workspace: workspace.clone(),
            name,
            pool: self.pool,
            members: rows.into_iter().filter_map(|row| Some((row.clone(), map_peer(row)?))).collect(),
            policies,
        })
    }
}

impl Snapshot {
    /// The generation of the maps that are made of it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every overlay address lies in here.
    pub fn pool(&self) -> Ipv4Net {
        self.pool.net()
    }

    /// Its members, by address.
    pub fn members(&self) -> impl Iterator<Item = &PeerRow> {
        self.members.iter().map(|(row, _)| row)
    }

    /// Its policies that are in force, by name.
    pub fn policies(&self) -> &[PolicyRow] {
        &self.policies
    }

    /// The map of one member, without its policy.
    pub fn netmap(&self, id: &PeerId) -> Option<NetMap> {
        let (own, _) = self.members.iter().find(|(row, _)| row.id == *id)?;
        Some(NetMap {
            generation: self.generation,
            workspace: self.workspace.clone(),
            workspace_name: Some(self.name.clone()),
            peer: own.id.clone(),
            address: host(own.address),
            pool: self.pool.net(),
            peers: self
                .members
                .iter()
                .filter(|(row, _)| row.id != *id)
                .map(|(_, peer)| peer.clone())
                .collect(),
            not_after: own.expires_at,
            policy: None,
        })
    }
}

async fn has_rules(connection: &mut AnyConnection, workspace: &WorkspaceId) -> Result<bool, sqlx::Error> {
    let any = "SELECT id FROM policies WHERE workspace = $1 UNION ALL \
               SELECT id FROM members WHERE workspace = $1 AND preset IS NOT NULL LIMIT 1";
    Ok(sqlx::query(any).bind(workspace.as_str()).fetch_optional(connection).await?.is_some())
}

/// `None` for one that is only reserved, which is no member.
fn map_peer(row: PeerRow) -> Option<MapPeer> {
    Some(MapPeer {
        id: row.id,
        name: row.name,
        public_key: row.wireguard_public_key?,
        allowed_ips: vec![IpNet::V4(host(row.address))],
        endpoints: row.endpoints.0,
        online: row.online,
        not_after: row.expires_at,
    })
}

/// The /32 of one address.
pub fn host(address: Address) -> Ipv4Net {
    address.0.into()
}
