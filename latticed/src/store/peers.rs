//! Peers: who they are, where they may be reached, whether they are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use lattice_wire::{PeerId, PeerName, WgPublicKey, WorkspaceId, message::PeerKind, netmap::MAX_ENDPOINTS};
use sqlx::FromRow;

use super::{Store, StoreError, leases, workspaces};

/// A peer that has not been removed, with its lease.
#[derive(Debug, Clone, FromRow)]
pub struct PeerRow {
    /// Its id.
    #[sqlx(try_from = "String")]
    pub id: PeerId,
    /// Its workspace.
    #[sqlx(try_from = "String")]
    pub workspace: WorkspaceId,
    /// Its name.
    #[sqlx(try_from = "String")]
    pub name: PeerName,
    /// What it is.
    #[sqlx(try_from = "String")]
    pub kind: Kind,
    /// Its WireGuard key.
    #[sqlx(try_from = "String")]
    pub wireguard_public_key: WgPublicKey,
    /// Where it may be reached.
    #[sqlx(try_from = "String")]
    pub endpoints: Endpoints,
    /// Whether it has been heard from lately.
    pub online: bool,
    /// Unix seconds.
    pub last_seen: i64,
    /// Unix seconds.
    pub created_at: i64,
    /// Its overlay address.
    #[sqlx(try_from = "u32")]
    pub address: Address,
}

/// [`PeerKind`] as a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub PeerKind);

/// Endpoints as a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints(pub Vec<SocketAddr>);

/// An address as a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub Ipv4Addr);

/// A column that holds what this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("unknown peer kind {0:?}")]
pub struct UnknownKind(String);

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
    /// The peers of a workspace, or of all, in the order of their addresses.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn peers(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<PeerRow>, StoreError> {
        let select = "SELECT * FROM members WHERE ?1 IS NULL OR workspace = ?1 ORDER BY address";
        Ok(sqlx::query_as(select).bind(workspace.map(WorkspaceId::as_str)).fetch_all(&self.read).await?)
    }

    /// Records that `id` is there and may be reached at `endpoints`. When neither is news, only reads.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn heard(&self, id: &PeerId, endpoints: &Endpoints, now: i64) -> Result<Heard, StoreError> {
        let known: Option<(bool, String)> =
            sqlx::query_as("SELECT online, endpoints FROM members WHERE id = ?")
                .bind(id.as_str())
                .fetch_optional(&self.read)
                .await?;
        let endpoints = endpoints.to_json();
        match known {
            None => return Ok(Heard::Unknown),
            Some((true, same)) if same == endpoints => return Ok(Heard::Same),
            Some(_) => {}
        }
        let update = "UPDATE peers SET online = 1, endpoints = ?2, last_seen = ?3 \
                      WHERE id = ?1 AND removed_at IS NULL RETURNING workspace";
        let mut transaction = self.begin().await?;
        let workspace: Option<WorkspaceColumn> = sqlx::query_as(update)
            .bind(id.as_str())
            .bind(endpoints)
            .bind(now)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(WorkspaceColumn { workspace }) = workspace else { return Ok(Heard::Unknown) };
        workspaces::bump(&mut transaction, &workspace).await?;
        transaction.commit().await?;
        Ok(Heard::Changed(workspace))
    }

    /// Marks a peer as gone: it keeps its identity and its lease. `None` when there is no such peer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn leave(&self, id: &PeerId, now: i64) -> Result<Option<WorkspaceId>, StoreError> {
        let update = "UPDATE peers SET online = 0, endpoints = '[]', last_seen = ?2 \
                      WHERE id = ?1 AND removed_at IS NULL RETURNING workspace";
        self.change(update, id, now, false).await
    }

    /// Removes a peer: its address and its name are free again. `None` when there is no such peer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_peer(&self, id: &PeerId, now: i64) -> Result<Option<WorkspaceId>, StoreError> {
        let update = "UPDATE peers SET online = 0, endpoints = '[]', removed_at = ?2 \
                      WHERE id = ?1 AND removed_at IS NULL RETURNING workspace";
        self.change(update, id, now, true).await
    }

    async fn change(
        &self,
        update: &'static str,
        id: &PeerId,
        now: i64,
        release: bool,
    ) -> Result<Option<WorkspaceId>, StoreError> {
        let mut transaction = self.begin().await?;
        let changed: Option<WorkspaceColumn> =
            sqlx::query_as(update).bind(id.as_str()).bind(now).fetch_optional(&mut *transaction).await?;
        let Some(WorkspaceColumn { workspace }) = changed else { return Ok(None) };
        if release {
            leases::release(&mut transaction, id).await?;
        }
        workspaces::bump(&mut transaction, &workspace).await?;
        transaction.commit().await?;
        Ok(Some(workspace))
    }

    /// Writes down when peers were heard from, then marks those offline that were not heard from since `cutoff`. When the
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
        for (id, at) in seen {
            sqlx::query(
                "UPDATE peers SET last_seen = max(last_seen, ?2) WHERE id = ?1 AND removed_at IS NULL",
            )
            .bind(id.as_str())
            .bind(at)
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::query("UPDATE peers SET last_seen = ?1 WHERE online = 1 AND last_seen > ?1")
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        let expired: Vec<WorkspaceColumn> = sqlx::query_as(
            "UPDATE peers SET online = 0 WHERE online = 1 AND last_seen < ? RETURNING workspace",
        )
        .bind(cutoff)
        .fetch_all(&mut *transaction)
        .await?;
        let workspaces: BTreeSet<_> = expired.into_iter().map(|row| row.workspace).collect();
        for workspace in &workspaces {
            workspaces::bump(&mut transaction, workspace).await?;
        }
        transaction.commit().await?;
        Ok(workspaces)
    }
}

#[derive(FromRow)]
struct WorkspaceColumn {
    #[sqlx(try_from = "String")]
    workspace: WorkspaceId,
}

// === impl columns ===

impl Kind {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            PeerKind::Sandbox => "sandbox",
            PeerKind::Node => "node",
        }
    }
}

impl TryFrom<String> for Kind {
    type Error = UnknownKind;
    fn try_from(text: String) -> Result<Self, UnknownKind> {
        match text.as_str() {
            "sandbox" => Ok(Self(PeerKind::Sandbox)),
            "node" => Ok(Self(PeerKind::Node)),
            _ => Err(UnknownKind(text)),
        }
    }
}

impl Endpoints {
    /// The endpoints of a peer that others may be told: nothing that would send their packets to themselves, to
    /// everybody or nowhere. The first [`MAX_ENDPOINTS`], in the peer's order, each once.
    pub fn sanitized(reported: &[SocketAddr]) -> Self {
        let mut kept = Vec::new();
        for endpoint in reported {
            let endpoint = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
            if kept.len() < MAX_ENDPOINTS && is_reachable(endpoint) && !kept.contains(&endpoint) {
                kept.push(endpoint);
            }
        }
        Self(kept)
    }

    pub(super) fn to_json(&self) -> String {
        let texts: Vec<_> = self.0.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
        format!("[{}]", texts.join(","))
    }
}

fn is_reachable(endpoint: SocketAddr) -> bool {
    let routed = match endpoint.ip() {
        IpAddr::V4(ip) => !ip.is_broadcast() && ip.octets()[0] != 0,
        // A link-local address means nothing without the zone, which differs on every host.
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    let ip = endpoint.ip();
    routed && endpoint.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback()
}

impl TryFrom<String> for Endpoints {
    type Error = serde_json::Error;
    fn try_from(text: String) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&text).map(Self)
    }
}

impl From<u32> for Address {
    fn from(bits: u32) -> Self {
        Self(Ipv4Addr::from_bits(bits))
    }
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

    const NOW: i64 = 2_000;

    fn endpoints(texts: &[&str]) -> Endpoints {
        Endpoints(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn keeps_only_endpoints_that_can_be_reached() {
        let good = ["192.0.2.1:51820", "10.0.0.1:1", "[2001:db8::1]:51820"];
        let bad = [
            "0.0.0.0:1",
            "192.0.2.1:0",
            "127.0.0.1:1",
            "127.9.9.9:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "0.1.2.3:1",
            "[::]:1",
            "[::1]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[::ffff:127.0.0.1]:1",
        ];
        let reported = endpoints(&[&bad[..], &good, &good].concat());
        assert_eq!(Endpoints::sanitized(&reported.0), endpoints(&good));

        let many: Vec<_> = (1..1000).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        assert_eq!(Endpoints::sanitized(&many).0, many[..MAX_ENDPOINTS]);
    }

    #[test]
    fn endpoints_survive_their_column() {
        let all = endpoints(&["192.0.2.1:51820", "[2001:db8::1]:51820"]);
        assert_eq!(Endpoints::try_from(all.to_json()).unwrap(), all);
    }

    #[tokio::test]
    async fn only_news_makes_maps_newer() {
        let (_dir, store) = store("10.42.0.0/16").await;
        enroll(&store, 1, "a", &token(&store, 1, 1).await).await.unwrap();
        let (id, here) = (PeerId::from_random([1; 10]), endpoints(&["192.0.2.1:1"]));
        let workspace = WorkspaceId::from_random([1; 10]);

        assert_eq!(store.heard(&id, &here, 2_000).await.unwrap(), Heard::Changed(workspace.clone()));
        assert_eq!(store.heard(&id, &here, 2_001).await.unwrap(), Heard::Same);
        assert_eq!(store.leave(&id, 2_002).await.unwrap(), Some(workspace.clone()));
        assert_eq!(store.heard(&id, &here, 2_003).await.unwrap(), Heard::Changed(workspace.clone()));
        assert_eq!(store.remove_peer(&id, 2_004).await.unwrap(), Some(workspace));
        assert_eq!(store.heard(&id, &here, 2_005).await.unwrap(), Heard::Unknown);
        assert_eq!(store.leave(&id, 2_005).await.unwrap(), None);
        assert_eq!(store.remove_peer(&id, 2_005).await.unwrap(), None);
    }

    #[tokio::test]
    async fn goes_offline_after_the_cutoff_and_not_before() {
        let (_dir, store) = store("10.42.0.0/16").await;
        enroll(&store, 1, "a", &token(&store, 1, 1).await).await.unwrap();
        let (id, workspace) = (PeerId::from_random([1; 10]), WorkspaceId::from_random([1; 10]));
        let none = BTreeMap::new();

        assert!(store.expire_presence(&none, 1_000, NOW).await.unwrap().is_empty());
        let seen = BTreeMap::from([(id, 1_050)]);
        assert!(store.expire_presence(&seen, 1_050, NOW).await.unwrap().is_empty());
        assert!(store.peers(None).await.unwrap()[0].online);
        assert_eq!(store.expire_presence(&none, 1_051, NOW).await.unwrap(), BTreeSet::from([workspace]));
        assert!(!store.peers(None).await.unwrap()[0].online);
        assert!(store.expire_presence(&none, 1_051, NOW).await.unwrap().is_empty(), "said once");
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_keeps_nobody_online() {
        let (_dir, store) = store("10.42.0.0/16").await;
        enroll(&store, 1, "a", &token(&store, 1, 1).await).await.unwrap();
        let seen = BTreeMap::from([(PeerId::from_random([1; 10]), 9_000)]);
        assert!(store.expire_presence(&seen, 8_910, 9_000).await.unwrap().is_empty());
        let back = 5_000;
        assert!(store.expire_presence(&BTreeMap::new(), back - 90, back).await.unwrap().is_empty());
        assert!(!store.expire_presence(&BTreeMap::new(), back + 1, back + 91).await.unwrap().is_empty());
    }
}
