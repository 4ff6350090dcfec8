use std::net::SocketAddr;

use super::{super::StoreError, *};

async fn opens_its_own_database_again(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    store.close().await;
    let store = place.store(POOL).await;
    assert!(store.ping().await);
    assert_eq!(store.workspaces(&Page::all()).await.unwrap().len(), 1);
}

contract! { opens_its_own_database_again }

async fn sqlite() -> (Place, Store) {
    let place = Place::sqlite().await.unwrap();
    let store = place.store(POOL).await;
    (place, store)
}

#[tokio::test]
async fn sqlite_syncs_every_commit_and_knows_its_references() {
    let (_place, store) = sqlite().await;
    for pool in [&store.read, &store.write] {
        for (pragma, expected) in [("PRAGMA synchronous", 2), ("PRAGMA foreign_keys", 1)] {
            let (value,): (i64,) = sqlx::query_as(pragma).fetch_one(pool).await.unwrap();
            assert_eq!(value, expected, "{pragma}");
        }
        let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(pool).await.unwrap();
        assert_eq!(mode, "wal");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_costs_the_token_nothing_and_passes() {
    let (_place, store) = sqlite().await;
    let token = token(&store, 1, 2).await;
    // The database may not grow any more; what does not fit into the room that is left is refused.
    sqlx::query("PRAGMA max_page_count = 1").execute(&store.write).await.unwrap();
    let peer = NewPeer {
        id: &peer_id(9),
        name: &"a".parse().unwrap(),
        kind: PeerKind::Sandbox,
        wireguard_public_key: WgPublicKey([9; 32]),
        nats_public_key: "U",
        endpoints: &Endpoints(vec![SocketAddr::from(([192, 0, 2, 1], 1)); 1000]),
        preset: None,
        jwt_expires_at: NOW,
    };
    let error = store.enroll(&peer, Some(&token), NOW).await.unwrap_err();
    assert!(matches!(error, StoreError::Full(_)) && error.to_string().contains("make room"), "{error:?}");
    assert!(store.ping().await && store.peers(None, &Page::all()).await.unwrap().is_empty());

    sqlx::query("PRAGMA max_page_count = 1000000").execute(&store.write).await.unwrap();
    assert!(store.enroll(&peer, Some(&token), NOW).await.unwrap().is_ok());
    assert_eq!(uses(&store, &token).await, 1);
}

#[tokio::test]
async fn a_damaged_database_is_named_with_the_remedy() {
    let (place, store) = sqlite().await;
    store.close().await;
    let Database::Sqlite(path) = &place.database else { unreachable!() };
    let whole = std::fs::read(path).unwrap();
    let mut holed = whole.clone();
    holed[4096..].fill(0xa5);
    for damaged in
        [b"not a database at all, but long enough".repeat(200), whole[..whole.len() / 2].to_vec(), holed]
    {
        std::fs::write(path, damaged).unwrap();
        let error = Store::open(&place.database, POOL.parse().unwrap(), 0).await.unwrap_err().to_string();
        assert!(error.contains("lattice #1?.db") && error.contains("backup"), "{error}");
        assert!(["not a database", "malformed", "page"].iter().any(|how| error.contains(how)), "{error}");
    }
}

#[tokio::test]
async fn several_may_make_the_schema_at_once() {
    let Some(place) = Place::postgres().await else { return };
    let stores = futures::future::join_all((0..5).map(|_| place.store(POOL))).await;
    workspace(&stores[0], 1).await;
    assert_eq!(stores[4].workspaces(&Page::all()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_database_that_was_away_is_used_again() {
    let Some(cluster) = cluster::Cluster::start() else { return };
    let place = Place { database: Database::Postgres(cluster.database().await.into()), _dir: None };
    let (store, other) = (place.store(POOL).await, place.store(POOL).await);
    let token = token(&store, 1, 5).await;
    enroll(&store, 1, "a", &token).await.unwrap();
    let before = state(&store).await;

    cluster.crash();
    let page = Page::all();
    let (read, written, answers, opened) = tokio::join!(
        store.peers(None, &page),
        store.revoke_token(token.id(), NOW),
        store.ping(),
        Store::open(&place.database, POOL.parse().unwrap(), 0),
    );
    let read = read.unwrap_err();
    assert!(matches!(read, StoreError::Away(_)), "{read:?}");
    assert!(read.to_string().contains("does not answer"), "{read}");
    assert!(matches!(written, Err(StoreError::Away(_))));
    assert!(!answers);
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("postgres:///t0") && error.contains("--database-url"), "{error}");

    cluster.restart();
    assert_eq!(state(&store).await, before);
    for (n, store) in [(2, &store), (3, &other)] {
        assert!(enroll(store, n, &format!("p{n}"), &token).await.is_ok());
    }
}
