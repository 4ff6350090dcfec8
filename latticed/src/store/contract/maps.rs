use ipnet::IpNet;
use lattice_wire::{Applied, MapDelta};

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
    let news = store.news(&workspace_id(1), None, NOW).await.unwrap();
    assert_eq!(news.receivers, [(peer_id(1), Some(NOW + 100)), (peer_id(2), None)]);
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

/// Whatever changes, what is new since any generation leads from the map of then to the map of now.
async fn news_lead_from_any_map_to_the_newest(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let brief = NewToken { peer_ttl: Some(100), ..new_token(1, 9) };
    let (brief, long) = (token_of(&store, 1, brief).await, token_of(&store, 2, new_token(1, 9)).await);
    enroll(&store, 1, "a", &long).await.unwrap();
    let (mut maps, mut shapes) = (Vec::new(), Vec::new());
    let here = Endpoints(vec!["192.0.2.1:7".parse().unwrap()]);
    for step in 0.. {
        let shape = match step {
            0 => enroll(&store, 2, "b", &brief).await.map(|_| true).unwrap(),
            1 => store.heard(&peer_id(2), &here, NOW).await.map(|_| false).unwrap(),
            2 => enroll(&store, 3, "c", &long).await.map(|_| true).unwrap(),
            3 => store.leave(&peer_id(3), NOW).await.map(|_| false).unwrap(),
            4 => store.renew(&peer_id(2), NOW + 50).await.map(|_| false).unwrap(),
            5 => store.expire_presence(&BTreeMap::new(), NOW + 1, NOW).await.map(|_| false).unwrap(),
            6 => store.heard(&peer_id(1), &here, NOW).await.map(|_| false).unwrap(),
            7 => store
                .set_labels(&peer_id(3), &BTreeMap::from([("a".into(), "b".into())]))
                .await
                .map(|_| true)
                .unwrap(),
            8 => store.remove_peer(&peer_id(3), NOW).await.map(|_| true).unwrap(),
            9 => store.expire_peers(NOW + 1000).await.map(|removed| !removed.is_empty()).unwrap(),
            _ => break,
        };
        let news = store.news(&workspace_id(1), None, NOW).await.unwrap();
        assert_eq!(news.shape == news.generation, shape, "step {step}");
        maps.push(store.netmap(&peer_id(1), NOW).await.unwrap().unwrap());
        shapes.push(news.shape);
        for old in &maps {
            let news = store.news(&workspace_id(1), Some(old.generation), NOW).await.unwrap();
            let mut map = old.clone();
            let applied = map.apply(MapDelta {
                since: news.since,
                generation: news.generation,
                changed: news.changed,
                removed: news.removed,
                not_after: None,
                policy: None,
            });
            let newest = maps.last().unwrap();
            map.peers.sort_by_key(|peer| peer.allowed_ips.clone());
            assert_eq!(&map, newest, "step {step} from {}", old.generation);
            assert_eq!(applied == Applied::Same, old.generation == newest.generation);
        }
    }
    assert!(shapes.is_sorted());
}

contract! { news_lead_from_any_map_to_the_newest, shows_the_others_of_the_workspace_and_grows, shows_when_each_is_over, other_labels_make_maps_newer }
