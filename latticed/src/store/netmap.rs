//! Network maps, read from one snapshot: the generation always belongs to the peers and policies beside it.

use ipnet::{IpNet, Ipv4Net};
use lattice_wire::{MapPeer, NetMap, PeerId, WorkspaceId};

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
    pool: Pool,
    /// With what others are told of each.
    members: Vec<(PeerRow, MapPeer)>,
    policies: Vec<PolicyRow>,
}

impl Store {
    /// The workspace as it is now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn snapshot(&self, workspace: &WorkspaceId, now: i64) -> Result<Snapshot, StoreError> {
        let mut transaction = self.begin_read().await?;
        let (generation,): (i64,) = sqlx::query_as("SELECT generation FROM workspaces WHERE id = $1")
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
            pool: self.pool,
            members: rows.into_iter().filter_map(|row| Some((row.clone(), map_peer(row)?))).collect(),
            policies,
        })
    }

    /// The network map of one peer. `None` when there is no such peer, or it is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn netmap(&self, id: &PeerId, now: i64) -> Result<Option<NetMap>, StoreError> {
        let workspace = sqlx::query("SELECT workspace FROM members WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.read)
            .await?;
        let Some(row) = workspace else { return Ok(None) };
        Ok(self.snapshot(&text(&row, "workspace")?, now).await?.netmap(id))
    }
}

impl Snapshot {
    /// The peers that are there to receive a map.
    pub fn online(&self) -> impl Iterator<Item = &PeerId> {
        self.members.iter().filter(|(row, _)| row.online).map(|(row, _)| &row.id)
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
