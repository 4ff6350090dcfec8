use lattice_wire::{Applied, MapUpdate};

use super::*;

async fn removed_peers_are_forgotten_once_nobody_needs_them(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 9).await;
    for (n, name) in [(1, "stays"), (2, "first"), (3, "second"), (4, "fresh")] {
        enroll(&store, n, name, &token).await.unwrap();
    }
    let old = store.netmap(&peer_id(1), NOW).await.unwrap().unwrap();
    for (n, at) in [(2, NOW), (3, NOW), (4, NOW + 5_000)] {
        store.remove_peer(&peer_id(n), at).await.unwrap();
    }
    let rows = async || {
        let select = "SELECT id FROM peers WHERE removed_at IS NOT NULL ORDER BY id";
        let rows: Vec<(String,)> = sqlx::query_as(select).fetch_all(&store.read).await.unwrap();
        rows.len()
    };
    // Its address rests, then its JWT is valid, then it is not old enough.
    for (before, now) in [(NOW, NOW + QUARANTINE - 1), (NOW, NOW + 999), (NOW - 1, NOW + 9_000)] {
        assert!(!store.prune_peers(before, now).await.unwrap());
        assert_eq!(rows().await, 3, "{before} {now}");
    }
    store.prune_peers(NOW, NOW + 9_000).await.unwrap();
    assert_eq!(rows().await, 1);
    assert!(store.peer(&peer_id(1)).await.unwrap().is_some());
    enroll(&store, 5, "first", &token).await.unwrap();

    // Who has an older map learns all the same that they are gone.
    let mut view = View::empty(workspace_id(1));
    view.update(store.changes(&workspace_id(1), None, NOW).await.unwrap());
    let newest = view.netmap(&peer_id(1), NOW).unwrap();
    let mut map = old.clone();
    let map = match view.answer(&peer_id(1), Some(old.version()), NOW).unwrap() {
        MapUpdate::Full(whole) => whole,
        MapUpdate::Delta(delta) => {
            assert_eq!(map.apply(delta), Applied::Gap, "it cannot tell who is forgotten");
            newest.clone()
        }
        MapUpdate::Current => panic!("it is not"),
    };
    assert_eq!(map.peers.iter().map(|peer| &peer.id).collect::<Vec<_>>(), [&peer_id(5)]);
}

async fn many_are_forgotten_some_at_a_time(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 250).await;
    for n in 0..=220 {
        enroll(&store, n, &format!("n{n}"), &token).await.unwrap();
        store.remove_peer(&peer_id(n), NOW).await.unwrap();
    }
    assert!(store.prune_peers(NOW, NOW + 9_000).await.unwrap(), "there are more");
    assert!(!store.prune_peers(NOW, NOW + 9_000).await.unwrap());
    assert!(!store.prune_peers(NOW, NOW + 9_000).await.unwrap());
}

contract! { removed_peers_are_forgotten_once_nobody_needs_them, many_are_forgotten_some_at_a_time }
