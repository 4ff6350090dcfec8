use super::{
    super::{
        repeat::{REPEATABLE_SECS, Repeat},
        reserve::{NewReservation, NewStatic},
        tokens::TokenRefused,
    },
    reservations::{own, reservation},
    *,
};

fn repeat(caller: &str, key: &str, what: u8) -> Repeat {
    Repeat { caller: caller.into(), key: key.into(), request_hash: [what; 32] }
}

async fn the_same_request_again_is_granted_the_same_peer(place: Place) {
    let store = place.store(POOL).await;
    let limited = token(&store, 1, 1).await;
    let (first, again, third) = (own(), own(), own());
    let tokens = [first.token.clone(), again.token.clone(), third.token.clone()];
    let key = repeat("lt-a", "k", 1);
    let ask = async |n, own, repeat: &Repeat, now| {
        store.reserve(&reservation(n, "agent"), Some(&limited), own, Some(repeat), now).await.unwrap()
    };
    let admitted = ask(1, first, &key, NOW).await.unwrap();
    let repeated = ask(2, again, &key, NOW + 1).await.unwrap();
    assert_eq!(repeated, Admitted { again: true, ..admitted.clone() });
    assert_eq!(uses(&store, &limited).await, 1, "it takes no use");

    let before = state(&store).await;
    let refused = ask(3, own(), &repeat("lt-a", "k", 2), NOW + 1).await;
    assert_eq!(refused, Err(EnrollRefused::OtherRequest));
    // What others choose as a key, and other keys, mean nothing.
    for other in [repeat("lt-b", "k", 1), repeat("lt-a", "l", 1)] {
        assert_eq!(ask(3, own(), &other, NOW + 1).await, Err(TokenRefused::Used.into()));
    }
    assert_eq!(state(&store).await, before);

    // The token of the first answer opens nothing any more, that of the second admits.
    assert!(store.bearer(&tokens[0], NOW + 2).await.unwrap().is_none());
    assert_eq!(enroll(&store, 9, "agent", &tokens[0]).await, Err(TokenRefused::Revoked.into()));
    assert_eq!(enroll_at(&store, 9, "agent", &tokens[1], NOW + 2).await.unwrap().peer, peer_id(1));
    // Once it is there, another only speaks for it.
    let there = ask(4, third, &key, NOW + 3).await.unwrap();
    assert_eq!((there.peer, there.again), (peer_id(1), true));
    let row = store.bearer(&tokens[2], NOW + 3).await.unwrap().unwrap();
    assert_eq!((row.max_uses, row.peer), (0, Some(peer_id(1))));

    store.remove_peer(&peer_id(1), NOW + 4).await.unwrap();
    assert_eq!(ask(5, own(), &key, NOW + 4).await, Err(EnrollRefused::Gone));
    let later = NOW + REPEATABLE_SECS;
    assert_eq!(ask(5, own(), &key, later).await, Err(TokenRefused::Expired.into()), "it is forgotten");
}

async fn a_key_can_be_chosen_anew_after_a_day(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let new = |n, name: &str| NewStatic {
        peer: NewReservation { ttl: None, ..reservation(n, name) },
        wireguard_public_key: WgPublicKey([n; 32]),
        endpoints: Endpoints::default(),
    };
    let key = repeat("la-a", "k", 1);
    let ask = async |n, name, now| {
        store.admit_static(&new(n, name), None, own(), Some(&key), now).await.unwrap().unwrap()
    };
    assert!(!ask(1, "a", NOW).await.again);
    assert!(
        ask(2, "b", NOW + REPEATABLE_SECS - 1).await.again,
        "only what the caller says is the same counts"
    );
    assert!(!store.prune_repeatable(NOW + REPEATABLE_SECS - 1).await.unwrap());
    let anew = ask(3, "c", NOW + REPEATABLE_SECS).await;
    assert_eq!((anew.peer, anew.again), (peer_id(3), false));
    store.prune_repeatable(NOW + 2 * REPEATABLE_SECS).await.unwrap();
    assert_eq!(ask(4, "d", NOW + REPEATABLE_SECS + 1).await.peer, peer_id(4), "it was forgotten");
}

contract! { the_same_request_again_is_granted_the_same_peer, a_key_can_be_chosen_anew_after_a_day }
