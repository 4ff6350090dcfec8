//! What the store promises, on every database that it runs on: each test runs once on each.

mod addresses;
mod admins;
mod cluster;
mod enrolment;
mod lifetimes;
mod lineage;
mod lists;
mod maps;
mod outage;
mod owner;
mod policies;
mod presence;
mod prune;
mod repeat;
mod reservations;
mod tokens;

use std::collections::BTreeMap;

use ipnet::Ipv6Net;
use lattice_policy::Overlay;
use lattice_wire::{NetMap, PeerId, Token, WgPublicKey, WorkspaceId, message::PeerKind};
use tempfile::TempDir;

use crate::maps::View;

use super::{
    Database, Page, Store, StoreError,
    enroll::{Admitted, EnrollRefused, NewPeer},
    peers::Endpoints,
    tokens::NewToken,
};

const NOW: i64 = 1_000;
/// How long addresses rest in these tests, seconds.
const QUARANTINE: i64 = 60;
const POOL: &str = "10.42.0.0/16";

/// Where a test keeps its database.
struct Place {
    database: Database,
    _dir: Option<TempDir>,
}

impl Place {
    async fn sqlite() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        Some(Self { database: Database::Sqlite(dir.path().join("lattice #1?.db")), _dir: Some(dir) })
    }

    /// `None` where there is no Postgres.
    async fn postgres() -> Option<Self> {
        let url = cluster::shared()?.database().await;
        Some(Self { database: Database::Postgres(url.into()), _dir: None })
    }

    async fn store(&self, pool: &str) -> Store {
        Store::open(&self.database, pool.parse().unwrap(), QUARANTINE).await.unwrap()
    }
}

/// Runs each of these functions once on each database.
macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::sqlite().await.unwrap()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                if let Some(place) = super::Place::postgres().await {
                    super::$name(place).await;
                }
            })+
        }
    };
}
use contract;

impl Store {
    /// The map of one peer, as it is answered.
    async fn netmap(&self, id: &PeerId, now: i64) -> Result<Option<NetMap>, StoreError> {
        let Some(own) = self.standing(id, now).await? else { return Ok(None) };
        let mut view = View::empty(own.workspace.clone());
        view.update(self.changes(&own.workspace, None, now).await?);
        let map = view.netmap(id, now);
        assert_eq!(map.as_ref().map(NetMap::version), Some(own.version));
        Ok(map)
    }
}

fn peer_id(n: u8) -> PeerId {
    PeerId::from_random([n; 10])
}

fn workspace_id(n: u8) -> WorkspaceId {
    WorkspaceId::from_random([n; 10])
}

fn prefix(n: u8) -> Ipv6Net {
    Overlay::prefix_of([n; 5])
}

async fn workspace(store: &Store, n: u8) -> WorkspaceId {
    let name = format!("w{n}").parse().unwrap();
    store.create_workspace(workspace_id(n), name, prefix(n), NOW).await.unwrap().unwrap().id
}

fn new_token(n: u8, uses: i64) -> NewToken {
    NewToken {
        workspace: workspace_id(n),
        max_uses: uses,
        expires_at: NOW + 10,
        preset: None,
        labels: BTreeMap::new(),
        name_prefix: None,
        peer_ttl: None,
        peer: None,
        created_by: "test".into(),
    }
}

/// Token number `n` as `new` says.
async fn token_of(store: &Store, n: u8, new: NewToken) -> Token {
    let token = Token::from_random([n; 7], [n; 25]);
    store.create_token(&token, new, NOW).await.unwrap();
    token
}

/// A token of `uses` uses in a workspace of its own.
async fn token(store: &Store, n: u8, uses: i64) -> Token {
    workspace(store, n).await;
    token_of(store, n, new_token(n, uses)).await
}

/// Enrolls peer number `n` as `name`.
async fn enroll_at(
    store: &Store,
    n: u8,
    name: &str,
    token: &Token,
    now: i64,
) -> Result<Admitted, EnrollRefused> {
    let peer = NewPeer {
        id: &peer_id(n),
        name: &name.parse().unwrap(),
        kind: PeerKind::Sandbox,
        wireguard_public_key: WgPublicKey([n; 32]),
        nats_public_key: &format!("U{n}"),
        endpoints: &Endpoints::default(),
        preset: None,
        jwt_expires_at: now + 1_000,
    };
    store.enroll(&peer, Some(token), now).await.unwrap()
}

async fn enroll(store: &Store, n: u8, name: &str, token: &Token) -> Result<Admitted, EnrollRefused> {
    enroll_at(store, n, name, token, NOW).await
}

/// Everything that a refusal must leave as it is.
async fn state(store: &Store) -> String {
    let mut state = format!(
        "{:?} {:?}",
        store.tokens(None, &Page::all()).await.unwrap(),
        store.peers(None, &Page::all()).await.unwrap()
    );
    for workspace in store.workspaces(&Page::all()).await.unwrap() {
        state += &format!(" {:?}", store.snapshot(&workspace.id, NOW).await.unwrap());
    }
    state
}

async fn uses(store: &Store, token: &Token) -> i64 {
    store.token(token.id()).await.unwrap().unwrap().uses
}
