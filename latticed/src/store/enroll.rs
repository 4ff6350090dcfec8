//! Admission of a peer: token, peer and lease in one transaction, so that a refused peer costs the token nothing.

use std::net::Ipv4Addr;

use lattice_wire::{PeerId, PeerName, Token, WgPublicKey, WorkspaceId, message::PeerKind, netmap::MAX_PEERS};
use sqlx::SqliteConnection;

use super::{
    Store, StoreError, leases,
    peers::{Endpoints, Kind},
    tokens::{self, TokenRefused},
    workspaces,
};

/// A peer that asks to be admitted, with everything about it already verified but its token.
#[derive(Debug)]
pub struct NewPeer<'a> {
    /// A fresh id.
    pub id: &'a PeerId,
    /// The name that it asks for.
    pub name: &'a PeerName,
    /// What it is.
    pub kind: PeerKind,
    /// Its WireGuard key.
    pub wireguard_public_key: WgPublicKey,
    /// Its NATS user key.
    pub nats_public_key: &'a str,
    /// Where it may be reached.
    pub endpoints: &'a Endpoints,
}

/// An admitted peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The workspace that its token is of.
    pub workspace: WorkspaceId,
    /// The address that it leases.
    pub address: Ipv4Addr,
}

/// Why a peer is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrollRefused {
    /// Its token does not admit.
    #[error(transparent)]
    Token(#[from] TokenRefused),
    /// The name is not free.
    #[error(
        "another peer of the workspace is called {0:?}: choose another --name, or remove that peer first"
    )]
    NameTaken(String),
    /// The WireGuard key is not new.
    #[error("this WireGuard key is already enrolled: make a new key pair")]
    KeyTaken,
    /// No address is left.
    #[error("no address is free in {0}: remove peers that are gone, or start latticed with a bigger --pool")]
    PoolExhausted(String),
    /// The network map would become bigger than peers accept.
    #[error("the workspace has {MAX_PEERS} peers, the most there can be: remove peers that are gone")]
    WorkspaceFull,
}

impl Store {
    /// Admits a peer.
    ///
    /// # Errors
    /// When the database fails. A refusal is in the inner result and leaves everything as it was.
    pub async fn enroll(
        &self,
        peer: &NewPeer<'_>,
        token: &Token,
        now: i64,
    ) -> Result<Result<Admitted, EnrollRefused>, StoreError> {
        let mut transaction = self.begin().await?;
        let workspace = match tokens::consume(&mut transaction, token, now).await? {
            Ok(workspace) => workspace,
            Err(refused) => return Ok(Err(refused.into())),
        };
        if let Some(refused) = conflict(&mut transaction, peer, &workspace).await? {
            return Ok(Err(refused));
        }
        insert(&mut transaction, peer, &workspace, now).await?;
        let Some(address) = leases::lease(&mut transaction, self.pool, peer.id).await? else {
            return Ok(Err(EnrollRefused::PoolExhausted(self.pool.to_string())));
        };
        workspaces::bump(&mut transaction, &workspace).await?;
        transaction.commit().await?;
        Ok(Ok(Admitted { workspace, address }))
    }
}

async fn conflict(
    connection: &mut SqliteConnection,
    peer: &NewPeer<'_>,
    workspace: &WorkspaceId,
) -> Result<Option<EnrollRefused>, sqlx::Error> {
    let (name_taken, key_taken, count): (bool, bool, i64) = sqlx::query_as(
        "SELECT \
             EXISTS (SELECT 1 FROM peers WHERE workspace = ?1 AND name = ?2 AND removed_at IS NULL), \
             EXISTS (SELECT 1 FROM peers WHERE wireguard_public_key = ?3 AND removed_at IS NULL), \
             (SELECT count(*) FROM peers WHERE workspace = ?1 AND removed_at IS NULL)",
    )
    .bind(workspace.as_str())
    .bind(peer.name.as_str())
    .bind(peer.wireguard_public_key.to_string())
    .fetch_one(connection)
    .await?;
    // A map holds the others: with one more than its limit in the workspace it is just full.
    let full = usize::try_from(count).is_ok_and(|count| count > MAX_PEERS);
    Ok(match () {
        () if name_taken => Some(EnrollRefused::NameTaken(peer.name.to_string())),
        () if key_taken => Some(EnrollRefused::KeyTaken),
        () if full => Some(EnrollRefused::WorkspaceFull),
        () => None,
    })
}

async fn insert(
    connection: &mut SqliteConnection,
    peer: &NewPeer<'_>,
    workspace: &WorkspaceId,
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO peers (id, workspace, name, kind, wireguard_public_key, nats_public_key, endpoints, \
                            online, last_seen, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?8, ?8)",
    )
    .bind(peer.id.as_str())
    .bind(workspace.as_str())
    .bind(peer.name.as_str())
    .bind(Kind(peer.kind).as_str())
    .bind(peer.wireguard_public_key.to_string())
    .bind(peer.nats_public_key)
    .bind(peer.endpoints.to_json())
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{super::tests::store, *};

    const NOW: i64 = 1_000;

    /// Enrolls peer number `n` as `name` with `token`.
    pub(crate) async fn enroll(
        store: &Store,
        n: u8,
        name: &str,
        token: &Token,
    ) -> Result<Admitted, EnrollRefused> {
        let peer = NewPeer {
            id: &PeerId::from_random([n; 10]),
            name: &name.parse().unwrap(),
            kind: PeerKind::Sandbox,
            wireguard_public_key: WgPublicKey([n; 32]),
            nats_public_key: "U",
            endpoints: &Endpoints::default(),
        };
        store.enroll(&peer, token, NOW).await.unwrap()
    }

    /// A token of `uses` uses in a workspace of its own.
    pub(crate) async fn token(store: &Store, n: u8, uses: i64) -> Token {
        let workspace = WorkspaceId::from_random([n; 10]);
        store
            .create_workspace(workspace.clone(), format!("w{n}").parse().unwrap(), NOW)
            .await
            .unwrap()
            .unwrap();
        let token = Token::from_random([n; 7], [n; 25]);
        store.create_token(&token, workspace, uses, NOW, NOW + 10).await.unwrap();
        token
    }

    #[tokio::test]
    async fn leases_the_lowest_free_address() {
        let (_dir, store) = store("10.42.0.0/29").await;
        let token = token(&store, 1, 100).await;
        for n in 2..=6 {
            let admitted = enroll(&store, n, &format!("p{n}"), &token).await.unwrap();
            assert_eq!(admitted.address, Ipv4Addr::new(10, 42, 0, n));
        }
        let refused = enroll(&store, 7, "p7", &token).await;
        assert_eq!(refused, Err(EnrollRefused::PoolExhausted("10.42.0.0/29".into())));
        for n in [4, 2] {
            assert!(store.remove_peer(&PeerId::from_random([n; 10]), NOW).await.unwrap().is_some());
            assert_eq!(enroll(&store, n + 6, "new", &token).await.unwrap().address.octets()[3], n);
            store.remove_peer(&PeerId::from_random([n + 6; 10]), NOW).await.unwrap();
            assert_eq!(
                enroll(&store, n + 20, &format!("x{n}"), &token).await.unwrap().address.octets()[3],
                n
            );
        }
        assert_eq!(store.tokens(None).await.unwrap()[0].uses, 9, "the refused one is not counted");
    }

    #[tokio::test]
    async fn a_name_is_unique_in_its_workspace_only() {
        let (_dir, store) = store("10.42.0.0/16").await;
        let (one, other) = (token(&store, 1, 5).await, token(&store, 2, 5).await);
        assert!(enroll(&store, 1, "a", &one).await.is_ok());
        assert_eq!(enroll(&store, 2, "a", &one).await, Err(EnrollRefused::NameTaken("a".into())));
        assert!(enroll(&store, 2, "a", &other).await.is_ok());
        assert_eq!(store.tokens(None).await.unwrap()[0].uses, 1);
    }

    #[tokio::test]
    async fn a_full_disk_refuses_costs_the_token_nothing_and_passes() {
        let (_dir, store) = store("10.42.0.0/16").await;
        let token = token(&store, 1, 2).await;
        // The database may not grow any more; what does not fit into the room that is left is refused.
        sqlx::query("PRAGMA max_page_count = 1").execute(&store.write).await.unwrap();
        let peer = NewPeer {
            id: &PeerId::from_random([9; 10]),
            name: &"a".parse().unwrap(),
            kind: PeerKind::Sandbox,
            wireguard_public_key: WgPublicKey([9; 32]),
            nats_public_key: "U",
            endpoints: &Endpoints(vec![std::net::SocketAddr::from(([192, 0, 2, 1], 1)); 1000]),
        };
        let error = store.enroll(&peer, &token, NOW).await.unwrap_err().to_string();
        assert!(error.contains("full"), "{error}");
        assert!(store.ping().await && store.peers(None).await.unwrap().is_empty());

        sqlx::query("PRAGMA max_page_count = 1000000").execute(&store.write).await.unwrap();
        assert!(store.enroll(&peer, &token, NOW).await.unwrap().is_ok());
        assert_eq!(store.tokens(None).await.unwrap()[0].uses, 1);
    }

    #[tokio::test]
    async fn a_key_of_another_peer_cannot_be_enrolled() {
        let (_dir, store) = store("10.42.0.0/16").await;
        let token = token(&store, 1, 5).await;
        assert!(enroll(&store, 1, "a", &token).await.is_ok());
        let peer = NewPeer {
            id: &PeerId::from_random([9; 10]),
            name: &"thief".parse().unwrap(),
            kind: PeerKind::Sandbox,
            wireguard_public_key: WgPublicKey([1; 32]),
            nats_public_key: "U",
            endpoints: &Endpoints::default(),
        };
        assert_eq!(store.enroll(&peer, &token, NOW).await.unwrap(), Err(EnrollRefused::KeyTaken));
    }

    #[tokio::test]
    async fn a_one_time_token_admits_one_of_many() {
        let (_dir, store) = store("10.42.0.0/16").await;
        let token = token(&store, 200, 1).await;
        let results = futures::future::join_all((0..100).map(|n| {
            let (store, token) = (store.clone(), token.clone());
            async move { enroll(&store, n, &format!("p{n}"), &token).await }
        }))
        .await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
        let used = Err(EnrollRefused::Token(TokenRefused::Used));
        assert_eq!(results.iter().filter(|r| **r == used).count(), 99);
    }
}
