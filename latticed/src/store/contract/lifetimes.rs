use super::{
    super::{expiry::Renewed, peers::Member, presence::Heard},
    *,
};

/// A peer `a` that lives for 100 s, and one `b` that lives for ever.
async fn two(store: &Store) {
    workspace(store, 1).await;
    let brief = NewToken { peer_ttl: Some(100), expires_at: NOW + 1_000, ..new_token(1, 5) };
    let brief = token_of(store, 1, brief).await;
    let long = token_of(store, 2, new_token(1, 5)).await;
    enroll(store, 1, "a", &brief).await.unwrap();
    enroll(store, 2, "b", &long).await.unwrap();
}

async fn who_is_over_is_unknown_at_once(place: Place) {
    let store = place.store(POOL).await;
    two(&store).await;
    let (id, here) = (peer_id(1), Endpoints(vec!["192.0.2.1:1".parse().unwrap()]));
    let (last, over) = (NOW + 99, NOW + 100);

    assert!(store.netmap(&id, last).await.unwrap().is_some());
    assert_eq!(store.netmap(&peer_id(2), last).await.unwrap().unwrap().peers.len(), 1);
    assert_eq!(store.heard(&id, &here, last).await.unwrap(), Heard::Changed(workspace_id(1)));

    assert!(store.netmap(&id, over).await.unwrap().is_none());
    assert!(store.netmap(&peer_id(2), over).await.unwrap().unwrap().peers.is_empty());
    assert_eq!(store.heard(&id, &here, over).await.unwrap(), Heard::Unknown);
    assert_eq!(store.heard(&id, &Endpoints::default(), over).await.unwrap(), Heard::Unknown);
    assert_eq!(store.leave(&id, over).await.unwrap(), None);
    assert_eq!(store.renew(&id, over).await.unwrap(), None);
    let member = Member {
        workspace: workspace_id(1),
        wireguard_public_key: WgPublicKey([1; 32]),
        nats_public_key: Some("U1".into()),
        not_after: Some(over),
    };
    assert_eq!(store.member(&id, last).await.unwrap(), Some(member));
    assert_eq!(store.member(&id, over).await.unwrap(), None);
    assert_eq!(store.member(&peer_id(2), over).await.unwrap().unwrap().not_after, None);
    store.remove_peer(&peer_id(2), over).await.unwrap();
    assert_eq!(store.member(&peer_id(2), over).await.unwrap(), None);
}

async fn a_renewal_gives_the_time_again(place: Place) {
    let store = place.store(POOL).await;
    two(&store).await;
    let before = store.netmap(&peer_id(2), NOW).await.unwrap().unwrap();
    let renewed = store.renew(&peer_id(1), NOW + 99).await.unwrap().unwrap();
    let expected = Renewed {
        not_after: Some(NOW + 199),
        nats_public_key: Some("U1".into()),
        name: "a".parse().unwrap(),
        workspace: workspace_id(1),
    };
    assert_eq!(renewed, expected);
    let after = store.netmap(&peer_id(2), NOW + 150).await.unwrap().unwrap();
    assert!(after.generation > before.generation);
    assert_eq!(after.peers[0].not_after, Some(NOW + 199));

    let endless = store.renew(&peer_id(2), NOW).await.unwrap().unwrap();
    assert_eq!(endless.not_after, None);
    assert_eq!(store.renew(&peer_id(9), NOW).await.unwrap(), None);
}

async fn who_is_over_is_removed_once(place: Place) {
    let (store, other) = (place.store(POOL).await, place.store(POOL).await);
    two(&store).await;
    assert!(store.expire_peers(NOW + 99).await.unwrap().is_empty());
    let before = store.netmap(&peer_id(2), NOW).await.unwrap().unwrap().generation;
    let (one, two) = tokio::join!(store.expire_peers(NOW + 100), other.expire_peers(NOW + 100));
    let removed = [one.unwrap(), two.unwrap()].concat();
    assert_eq!(removed, [(peer_id(1), workspace_id(1))]);
    assert!(store.netmap(&peer_id(2), NOW).await.unwrap().unwrap().generation > before);
    assert!(store.peer(&peer_id(1)).await.unwrap().is_none());
    assert!(store.expire_peers(NOW + 100).await.unwrap().is_empty());

    let token = token_of(&store, 3, new_token(1, 1)).await;
    let admitted = enroll(&store, 3, "a", &token).await.unwrap();
    assert_eq!(admitted.address.octets()[3], 4, "the name is free, the address rests");
}

async fn a_successor_need_not_wait_for_the_reconciler(place: Place) {
    let store = place.store(POOL).await;
    two(&store).await;
    let token = token_of(&store, 3, NewToken { expires_at: NOW + 1_000, ..new_token(1, 2) }).await;
    let taken = EnrollRefused::NameTaken("a".into());
    assert_eq!(enroll_at(&store, 3, "a", &token, NOW + 99).await, Err(taken));
    assert_eq!(enroll_at(&store, 3, "a", &token, NOW + 100).await.unwrap().address.octets()[3], 4);
    assert!(store.peer(&peer_id(1)).await.unwrap().is_none());
}

async fn the_jwts_of_removed_peers_are_revoked_until_they_are_over(place: Place) {
    let store = place.store(POOL).await;
    two(&store).await;
    assert!(store.revoked_users(NOW).await.unwrap().is_empty());
    store.remove_peer(&peer_id(2), NOW + 5).await.unwrap();
    store.expire_peers(NOW + 100).await.unwrap();
    let mut revoked = store.revoked_users(NOW + 999).await.unwrap();
    revoked.sort();
    assert_eq!(revoked, [("U1".to_owned(), NOW + 100), ("U2".to_owned(), NOW + 5)]);
    assert!(store.revoked_users(NOW + 1_000).await.unwrap().is_empty());
}

contract! {
    who_is_over_is_unknown_at_once,
    a_renewal_gives_the_time_again,
    who_is_over_is_removed_once,
    a_successor_need_not_wait_for_the_reconciler,
    the_jwts_of_removed_peers_are_revoked_until_they_are_over,
}
