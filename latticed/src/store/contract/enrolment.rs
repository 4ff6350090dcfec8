use futures::future::join_all;

use super::{super::tokens::TokenRefused, *};

async fn a_one_time_token_admits_one_of_many(place: Place) {
    let (store, other) = (place.store(POOL).await, place.store(POOL).await);
    let token = token(&store, 200, 1).await;
    let results = join_all((0..100).map(|n| {
        let (store, token) = (if n % 2 == 0 { store.clone() } else { other.clone() }, token.clone());
        async move { enroll(&store, n, &format!("p{n}"), &token).await }
    }))
    .await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    let used = Err(EnrollRefused::Token(TokenRefused::Used));
    assert_eq!(results.iter().filter(|r| **r == used).count(), 99);
    assert_eq!(store.peers(None, &Page::all()).await.unwrap().len(), 1);
}

async fn a_name_is_unique_in_its_workspace_only(place: Place) {
    let store = place.store(POOL).await;
    let (one, other) = (token(&store, 1, 5).await, token(&store, 2, 5).await);
    assert!(enroll(&store, 1, "a", &one).await.is_ok());
    let before = state(&store).await;
    assert_eq!(enroll(&store, 2, "a", &one).await, Err(EnrollRefused::NameTaken("a".into())));
    assert_eq!(state(&store).await, before);
    assert!(enroll(&store, 2, "a", &other).await.is_ok());
    assert_eq!(uses(&store, &one).await, 1);
}

async fn a_key_of_another_peer_cannot_be_enrolled(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 5).await;
    assert!(enroll(&store, 1, "a", &token).await.is_ok());
    let before = state(&store).await;
    for (wireguard, nats) in [(1, "U9"), (9, "U1")] {
        let thief = NewPeer {
            id: &peer_id(9),
            name: &"thief".parse().unwrap(),
            kind: PeerKind::Node,
            wireguard_public_key: WgPublicKey([wireguard; 32]),
            nats_public_key: nats,
            endpoints: &Endpoints::default(),
            preset: None,
            jwt_expires_at: NOW,
        };
        assert_eq!(store.enroll(&thief, Some(&token), NOW).await.unwrap(), Err(EnrollRefused::KeyTaken));
        assert_eq!(state(&store).await, before);
    }
}

async fn who_lost_the_answer_gets_it_again(place: Place) {
    let store = place.store(POOL).await;
    let (mine, others) = (token(&store, 1, 1).await, token(&store, 2, 1).await);
    let first = enroll(&store, 1, "a", &mine).await.unwrap();
    store.revoke_token(mine.id(), NOW).await.unwrap();
    let before = state(&store).await;

    let ask = async |wireguard: u8, nats: &str, token: &Token, now| {
        let peer = NewPeer {
            id: &peer_id(9),
            name: &"a".parse().unwrap(),
            kind: PeerKind::Sandbox,
            wireguard_public_key: WgPublicKey([wireguard; 32]),
            nats_public_key: nats,
            endpoints: &Endpoints::default(),
            preset: None,
            jwt_expires_at: NOW,
        };
        store.enroll(&peer, Some(token), now).await.unwrap()
    };
    let again = async |token: &Token, now| ask(1, "U1", token, now).await;
    assert_eq!(again(&mine, NOW + 500).await, Ok(Admitted { again: true, ..first }));
    assert_eq!(state(&store).await, before, "a token that is over admits it again, and nothing changes");
    assert_eq!(again(&others, NOW).await, Err(EnrollRefused::KeyTaken), "a token of another workspace");
    let unknown = Token::from_random([1; 7], [9; 25]);
    assert_eq!(again(&unknown, NOW).await, Err(TokenRefused::Unknown.into()));
    for (wireguard, nats) in [(1, "U9"), (9, "U1")] {
        let refused = ask(wireguard, nats, &mine, NOW).await;
        assert_eq!(refused, Err(TokenRefused::Revoked.into()), "one other key: not the same peer");
    }

    store.remove_peer(&peer_id(1), NOW).await.unwrap();
    assert_eq!(
        again(&mine, NOW).await,
        Err(TokenRefused::Revoked.into()),
        "who was removed is not admitted again"
    );
}

async fn a_longer_jwt_is_remembered_when_it_is_given_again(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 1).await;
    let until = async || store.peer(&peer_id(1)).await.unwrap().unwrap().jwt_expires_at;
    enroll_at(&store, 1, "a", &token, NOW).await.unwrap();
    assert_eq!(until().await, Some(NOW + 1_000));
    enroll_at(&store, 1, "a", &token, NOW + 5).await.unwrap();
    assert_eq!(until().await, Some(NOW + 1_005));
    store.set_jwt_expiry(&peer_id(1), NOW + 2_000).await.unwrap();
    store.set_jwt_expiry(&peer_id(1), NOW + 7).await.unwrap();
    assert_eq!(until().await, Some(NOW + 2_000), "the older JWT still lives");
}

async fn a_stranger_without_a_token_waits_for_no_writer(place: Place) {
    let store = place.store(POOL).await;
    let stranger = NewPeer {
        id: &peer_id(9),
        name: &"a".parse().unwrap(),
        kind: PeerKind::Sandbox,
        wireguard_public_key: WgPublicKey([9; 32]),
        nats_public_key: "U9",
        endpoints: &Endpoints::default(),
        preset: None,
        jwt_expires_at: NOW,
    };
    let writing = store.begin().await.unwrap();
    assert_eq!(store.enroll(&stranger, None, NOW).await.unwrap(), Err(EnrollRefused::NoPeer));
    drop(writing);
}

contract! {
    a_stranger_without_a_token_waits_for_no_writer,
    a_one_time_token_admits_one_of_many,
    a_name_is_unique_in_its_workspace_only,
    a_key_of_another_peer_cannot_be_enrolled,
    who_lost_the_answer_gets_it_again,
    a_longer_jwt_is_remembered_when_it_is_given_again,
}
