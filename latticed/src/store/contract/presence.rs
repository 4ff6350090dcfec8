use std::collections::BTreeSet;

use super::{
    super::{presence::Heard, reserve::NewStatic},
    reservations::{own, reservation},
    *,
};

async fn only_news_makes_maps_newer(place: Place) {
    let store = place.store(POOL).await;
    enroll(&store, 1, "a", &token(&store, 1, 1).await).await.unwrap();
    let (id, workspace) = (peer_id(1), workspace_id(1));
    let here = Endpoints(vec!["192.0.2.1:1".parse().unwrap()]);

    assert_eq!(store.heard(&id, &here, 2_000).await.unwrap(), Heard::Changed(workspace.clone()));
    assert_eq!(store.heard(&id, &here, 2_001).await.unwrap(), Heard::Same);
    assert_eq!(store.leave(&id, 2_002).await.unwrap(), Some(workspace.clone()));
    assert_eq!(store.heard(&id, &here, 2_003).await.unwrap(), Heard::Changed(workspace.clone()));
    assert_eq!(store.remove_peer(&id, 2_004).await.unwrap(), Some(workspace));
    assert_eq!(store.heard(&id, &here, 2_005).await.unwrap(), Heard::Unknown);
    assert_eq!(store.leave(&id, 2_005).await.unwrap(), None);
    assert_eq!(store.remove_peer(&id, 2_005).await.unwrap(), None);
}

async fn goes_offline_after_the_cutoff_and_not_before(place: Place) {
    let store = place.store(POOL).await;
    enroll(&store, 1, "a", &token(&store, 1, 1).await).await.unwrap();
    let (now, none) = (2_000, BTreeMap::new());
    let online = async || store.peer(&peer_id(1)).await.unwrap().unwrap().online;

    assert!(store.expire_presence(&none, 1_000, now).await.unwrap().is_empty());
    let seen = BTreeMap::from([(peer_id(1), 1_050)]);
    assert!(store.expire_presence(&seen, 1_050, now).await.unwrap().is_empty());
    let older = BTreeMap::from([(peer_id(1), 1_020)]);
    assert!(store.expire_presence(&older, 1_050, now).await.unwrap().is_empty(), "time does not go back");
    assert!(online().await);
    let expired = store.expire_presence(&none, 1_051, now).await.unwrap();
    assert_eq!(expired, BTreeSet::from([workspace_id(1)]));
    assert!(!online().await);
    assert!(store.expire_presence(&none, 1_051, now).await.unwrap().is_empty(), "said once");
}

async fn a_peer_without_nats_is_not_taken_for_gone_because_it_is_silent(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let new = NewStatic {
        peer: reservation(1, "static"),
        wireguard_public_key: WgPublicKey([1; 32]),
        endpoints: Endpoints::default(),
    };
    store.admit_static(&new, None, own(), None, NOW).await.unwrap().unwrap();
    assert!(store.expire_presence(&BTreeMap::new(), 9_000, 9_090).await.unwrap().is_empty());
    assert!(store.peer(&peer_id(1)).await.unwrap().unwrap().online);
}

async fn a_clock_that_was_set_back_keeps_nobody_online(place: Place) {
    let store = place.store(POOL).await;
    enroll(&store, 1, "a", &token(&store, 1, 1).await).await.unwrap();
    let seen = BTreeMap::from([(peer_id(1), 9_000)]);
    assert!(store.expire_presence(&seen, 8_910, 9_000).await.unwrap().is_empty());
    let (back, none) = (5_000, BTreeMap::new());
    assert!(store.expire_presence(&none, back - 90, back).await.unwrap().is_empty());
    assert!(!store.expire_presence(&none, back + 1, back + 91).await.unwrap().is_empty());
}

async fn many_heartbeats_each_reach_their_peer(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 200).await;
    for n in 0..=9 {
        enroll(&store, n, &format!("p{n}"), &token).await.unwrap();
    }
    // Among strangers, so that they lie in several statements: whole ones and a rest.
    let stranger = |n: u16| {
        let [a, b] = n.to_be_bytes();
        PeerId::from_random([a, b, 99, 99, 99, 99, 99, 99, 99, 99])
    };
    let mut seen: BTreeMap<_, _> = (0..1_200).map(|n| (stranger(n), 1_999)).collect();
    seen.extend((0..=9).map(|n| (peer_id(n), 1_500 + i64::from(n))));
    assert!(store.expire_presence(&seen, 1_500, 2_000).await.unwrap().is_empty());
    for n in 0..=9 {
        assert_eq!(store.peer(&peer_id(n)).await.unwrap().unwrap().last_seen, 1_500 + i64::from(n));
    }
}

contract! {
    only_news_makes_maps_newer,
    goes_offline_after_the_cutoff_and_not_before,
    a_peer_without_nats_is_not_taken_for_gone_because_it_is_silent,
    a_clock_that_was_set_back_keeps_nobody_online,
    many_heartbeats_each_reach_their_peer,
}
