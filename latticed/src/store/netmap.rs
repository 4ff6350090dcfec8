//! Network maps, read from one snapshot: the generation always belongs to the peers beside it.

use ipnet::{IpNet, Ipv4Net};
use lattice_wire::{MapPeer, NetMap, PeerId, WorkspaceId};

use super::{
    Store, StoreError,
    peers::{Address, PeerRow},
};
use crate::pool::Pool;

/// A workspace at one generation: what the maps of all its peers are made of.
#[derive(Debug)]
pub struct Snapshot {
    generation: u64,
    workspace: WorkspaceId,
    pool: Pool,
    members: Vec<(PeerRow, MapPeer)>,
}

impl Store {
    /// The workspace as it is now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn snapshot(&self, workspace: &WorkspaceId) -> Result<Snapshot, StoreError> {
        let mut transaction = self.read.begin().await?;
        let (generation,): (i64,) = sqlx::query_as("SELECT generation FROM workspaces WHERE id = ?")
            .bind(workspace.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        let rows: Vec<PeerRow> = sqlx::query_as("SELECT * FROM members WHERE workspace = ? ORDER BY address")
            .bind(workspace.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        Ok(Snapshot {
            generation: generation.cast_unsigned(),
            workspace: workspace.clone(),
            pool: self.pool,
            members: rows.into_iter().map(|row| (row.clone(), map_peer(row))).collect(),
        })
    }

    /// The network map of one peer. `None` when there is no such peer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn netmap(&self, id: &PeerId) -> Result<Option<NetMap>, StoreError> {
        let workspace: Option<(String,)> = sqlx::query_as("SELECT workspace FROM members WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.read)
            .await?;
        let Some((workspace,)) = workspace else { return Ok(None) };
        let workspace = workspace.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
        Ok(self.snapshot(&workspace).await?.netmap(id))
    }
}

impl Snapshot {
    /// The peers that are there to receive a map.
    pub fn online(&self) -> impl Iterator<Item = &PeerId> {
        self.members.iter().filter(|(row, _)| row.online).map(|(row, _)| &row.id)
    }

    /// The map of one member.
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
            not_after: None,
            policy: None,
        })
    }
}

fn map_peer(row: PeerRow) -> MapPeer {
    MapPeer {
        id: row.id,
        name: row.name,
        public_key: row.wireguard_public_key,
        allowed_ips: vec![IpNet::V4(host(row.address))],
        endpoints: row.endpoints.0,
        online: row.online,
        not_after: None,
    }
}

/// The /32 of one address.
pub fn host(address: Address) -> Ipv4Net {
    address.0.into()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            enroll::tests::{enroll, token},
            tests::store,
        },
        *,
    };

    #[tokio::test]
    async fn shows_the_others_of_the_workspace_and_grows() {
        let (_dir, store) = store("10.42.0.0/16").await;
        let (one, other) = (token(&store, 1, 5).await, token(&store, 2, 5).await);
        let id = |n| PeerId::from_random([n; 10]);
        enroll(&store, 1, "a", &one).await.unwrap();
        let alone = store.netmap(&id(1)).await.unwrap().unwrap();
        assert!(alone.peers.is_empty());
        assert_eq!(alone.address, "10.42.0.2/32".parse().unwrap());

        enroll(&store, 2, "b", &one).await.unwrap();
        enroll(&store, 3, "stranger", &other).await.unwrap();
        let map = store.netmap(&id(1)).await.unwrap().unwrap();
        assert!(map.generation > alone.generation);
        assert_eq!(map.peers.len(), 1);
        assert_eq!(map.peers[0].id, id(2));
        assert_eq!(map.peers[0].allowed_ips, ["10.42.0.3/32".parse::<IpNet>().unwrap()]);
        assert_eq!(store.netmap(&id(9)).await.unwrap(), None);

        store.remove_peer(&id(2), 1).await.unwrap();
        let after = store.netmap(&id(1)).await.unwrap().unwrap();
        assert!(after.generation > map.generation && after.peers.is_empty());
        assert_eq!(store.netmap(&id(2)).await.unwrap(), None);
    }
}
