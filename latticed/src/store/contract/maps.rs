use ipnet::IpNet;

use super::*;

async fn shows_the_others_of_the_workspace_and_grows(place: Place) {
    let store = place.store(POOL).await;
    let (one, other) = (token(&store, 1, 5).await, token(&store, 2, 5).await);
    let map = async |n| store.netmap(&peer_id(n), NOW).await.unwrap();
    enroll(&store, 1, "a", &one).await.unwrap();
    let alone = map(1).await.unwrap();
    assert!(alone.peers.is_empty());
    assert_eq!(alone.address, "10.42.0.2/32".parse().unwrap());

    enroll(&store, 2, "b", &one).await.unwrap();
    enroll(&store, 3, "stranger", &other).await.unwrap();
    let both = map(1).await.unwrap();
    assert!(both.generation > alone.generation);
    assert_eq!(both.peers.len(), 1);
    assert_eq!(both.peers[0].id, peer_id(2));
    assert_eq!(both.peers[0].allowed_ips, ["10.42.0.3/32".parse::<IpNet>().unwrap()]);
    assert_eq!(map(9).await, None);

    store.remove_peer(&peer_id(2), NOW).await.unwrap();
    let after = map(1).await.unwrap();
    assert!(after.generation > both.generation && after.peers.is_empty());
    assert_eq!(map(2).await, None);
}

async fn shows_when_each_is_over(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let brief = NewToken { peer_ttl: Some(100), ..new_token(1, 1) };
    let (brief, long) = (token_of(&store, 1, brief).await, token_of(&store, 2, new_token(1, 1)).await);
    enroll(&store, 1, "a", &brief).await.unwrap();
    enroll(&store, 2, "b", &long).await.unwrap();
    let snapshot = store.snapshot(&workspace_id(1), NOW).await.unwrap();
    let (a, b) = (snapshot.netmap(&peer_id(1)).unwrap(), snapshot.netmap(&peer_id(2)).unwrap());
    assert_eq!((a.not_after, a.peers[0].not_after), (Some(NOW + 100), None));
    assert_eq!((b.not_after, b.peers[0].not_after), (None, Some(NOW + 100)));
    assert_eq!(snapshot.online().count(), 2);
    assert_eq!(snapshot.members().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

async fn other_labels_make_maps_newer(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 5).await;
    enroll(&store, 1, "a", &token).await.unwrap();
    let before = store.netmap(&peer_id(1), NOW).await.unwrap().unwrap();
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    assert_eq!(store.set_labels(&peer_id(1), &labels).await.unwrap(), Some(workspace_id(1)));
    assert_eq!(store.set_labels(&peer_id(9), &labels).await.unwrap(), None);
    let snapshot = store.snapshot(&workspace_id(1), NOW).await.unwrap();
    assert_eq!(snapshot.members().next().unwrap().labels, labels);
    assert!(snapshot.netmap(&peer_id(1)).unwrap().generation > before.generation);
}

contract! { shows_the_others_of_the_workspace_and_grows, shows_when_each_is_over, other_labels_make_maps_newer }
