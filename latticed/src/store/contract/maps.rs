use ipnet::IpNet;
use lattice_wire::{Applied, MapDelta};

use super::{super::policies::NewPolicy, *};

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
    let mut maps = Vec::new();
    let here = Endpoints(vec!["192.0.2.1:7".parse().unwrap()]);
    for step in 0.. {
        // Without a policy, only this one touches what policies say.
        let rules = step == 7;
        match step {
            0 => drop(enroll(&store, 2, "b", &brief).await.unwrap()),
            1 => drop(store.heard(&peer_id(2), &here, NOW).await.unwrap()),
            2 => drop(enroll(&store, 3, "c", &long).await.unwrap()),
            3 => drop(store.leave(&peer_id(3), NOW).await.unwrap()),
            4 => drop(store.renew(&peer_id(2), NOW + 50).await.unwrap()),
            5 => drop(store.expire_presence(&BTreeMap::new(), NOW + 1, NOW).await.unwrap()),
            6 => drop(store.heard(&peer_id(1), &here, NOW).await.unwrap()),
            7 => {
                let labels = BTreeMap::from([("a".into(), "b".into())]);
                drop(store.set_labels(&peer_id(3), &labels).await.unwrap());
            }
            8 => drop(store.remove_peer(&peer_id(3), NOW).await.unwrap()),
            9 => drop(store.expire_peers(NOW + 1000).await.unwrap()),
            _ => break,
        }
        let news = store.news(&workspace_id(1), None, NOW).await.unwrap();
        assert_eq!(news.rules, rules, "step {step}");
        maps.push(store.netmap(&peer_id(1), NOW).await.unwrap().unwrap());
        for old in &maps {
            let news = store.news(&workspace_id(1), Some(old.version()), NOW).await.unwrap();
            let mut map = old.clone();
            let applied = map.apply(MapDelta {
                epoch: news.version.epoch,
                since: news.since,
                generation: news.version.generation,
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
}

async fn who_joins_is_news_to_policies_where_there_are_any(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let token = token_of(&store, 1, new_token(1, 9)).await;
    let rules = async || store.news(&workspace_id(1), None, NOW).await.unwrap().rules;
    enroll(&store, 1, "a", &token).await.unwrap();
    assert!(!rules().await);
    let policy = NewPolicy {
        id: "p".into(),
        workspace: workspace_id(1),
        name: "p".into(),
        spec: "{}".into(),
        expires_at: None,
    };
    store.put_policy(policy, NOW).await.unwrap().unwrap();
    assert!(rules().await);
    enroll(&store, 2, "b", &token).await.unwrap();
    assert!(rules().await);
    store.heard(&peer_id(1), &Endpoints(vec!["192.0.2.1:7".parse().unwrap()]), NOW).await.unwrap();
    assert!(!rules().await, "where somebody is means nothing to a policy");
    assert!(store.remove_policy(&workspace_id(1), "p").await.unwrap());
    assert!(rules().await);

    let preset = NewToken { preset: Some("coordinator".into()), ..new_token(1, 9) };
    let preset = token_of(&store, 2, preset).await;
    enroll(&store, 3, "c", &preset).await.unwrap();
    enroll(&store, 4, "d", &token).await.unwrap();
    assert!(rules().await, "a preset too looks at who is there");
}

contract! { who_joins_is_news_to_policies_where_there_are_any, news_lead_from_any_map_to_the_newest, shows_the_others_of_the_workspace_and_grows, shows_when_each_is_over, other_labels_make_maps_newer }
