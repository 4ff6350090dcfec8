use ipnet::IpNet;
use lattice_wire::{Applied, MapUpdate};

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
    let map = async |n| store.netmap(&peer_id(n), NOW).await.unwrap().unwrap();
    let (a, b) = (map(1).await, map(2).await);
    assert_eq!((a.not_after, a.peers[0].not_after), (Some(NOW + 100), None));
    assert_eq!((b.not_after, b.peers[0].not_after), (None, Some(NOW + 100)));
    let snapshot = store.snapshot(&workspace_id(1), NOW).await.unwrap();
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
    assert!(store.netmap(&peer_id(1), NOW).await.unwrap().unwrap().generation > before.generation);
}

/// Whatever changes, a view that is kept new by changes tells any older map what leads to the newest.
async fn changes_lead_from_any_map_to_the_newest(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let brief = NewToken { peer_ttl: Some(100), ..new_token(1, 9) };
    let (brief, long) = (token_of(&store, 1, brief).await, token_of(&store, 2, new_token(1, 9)).await);
    enroll(&store, 1, "a", &long).await.unwrap();
    let mut view = View::empty(workspace_id(1));
    view.update(store.changes(&workspace_id(1), None, NOW).await.unwrap());
    let mut maps = Vec::new();
    let here = Endpoints(vec!["192.0.2.1:7".parse().unwrap()]);
    for step in 0.. {
        let mut now = NOW;
        match step {
            0 => drop(enroll(&store, 2, "b", &brief).await.unwrap()),
            1 => drop(store.heard(&peer_id(2), &here, NOW).await.unwrap()),
            2 => drop(enroll(&store, 3, "c", &long).await.unwrap()),
            3 => drop(store.leave(&peer_id(3), NOW).await.unwrap()),
            4 => drop(store.renew(&peer_id(2), NOW + 50).await.unwrap()),
            5 => drop(store.expire_presence(&BTreeMap::new(), NOW + 1, NOW).await.unwrap()),
            6 => {
                // A renewal of who needs none is no news.
                store.renew(&peer_id(1), NOW).await.unwrap().unwrap();
                drop(store.heard(&peer_id(1), &here, NOW).await.unwrap());
            }
            7 => {
                let labels = BTreeMap::from([("role".into(), "tool".into())]);
                drop(store.set_labels(&peer_id(3), &labels).await.unwrap());
            }
            8 => drop(store.put_policy(policy("egress"), NOW).await.unwrap().unwrap()),
            9 => drop(store.remove_peer(&peer_id(3), NOW).await.unwrap()),
            10 => drop(store.remove_policy(&workspace_id(1), "p").await.unwrap()),
            11 => {
                now = NOW + 1000;
                drop(store.expire_peers(now).await.unwrap());
            }
            _ => break,
        }
        let have = view.version();
        let changes = store.changes(&workspace_id(1), Some(have), now).await.unwrap();
        assert!(!changes.whole && changes.since == have.generation);
        assert_eq!(changes.policies.is_some(), [7, 8, 10].contains(&step), "step {step}");
        view.update(changes);
        let newest = store.netmap(&peer_id(1), now).await.unwrap().unwrap();
        assert_eq!(view.netmap(&peer_id(1), now).as_ref(), Some(&newest), "step {step}");
        maps.push(newest.clone());
        for old in &maps {
            let mut map = old.clone();
            match view.answer(&peer_id(1), Some(old.version()), now).unwrap() {
                MapUpdate::Full(whole) => map = whole,
                MapUpdate::Delta(delta) => assert_eq!(map.apply(delta), Applied::Newer, "step {step}"),
                MapUpdate::Current => assert_eq!(old.version(), newest.version()),
            }
            map.peers.sort_by_key(|peer| peer.allowed_ips.clone());
            assert_eq!(&map, maps.last().unwrap(), "step {step} from {}", old.generation);
        }
    }
}

fn policy(direction: &str) -> NewPolicy {
    let rule = format!(r#"{{"direction":"{direction}","action":"allow","rule":"tcp:{{role=tool}}:80"}}"#);
    NewPolicy {
        id: "p".into(),
        workspace: workspace_id(1),
        name: "p".into(),
        spec: format!(r#"{{"name":"p","rules":[{rule}]}}"#),
        expires_at: None,
    }
}

contract! { changes_lead_from_any_map_to_the_newest, shows_the_others_of_the_workspace_and_grows, shows_when_each_is_over, other_labels_make_maps_newer }
