use std::net::Ipv4Addr;

use futures::future::join_all;

use super::{super::StoreError, *};

async fn leases_the_lowest_address_that_does_not_rest(place: Place) {
    let store = place.store("10.42.0.0/29").await;
    let token = token_of_long(&store).await;
    for n in 2..=6 {
        let admitted = enroll(&store, n, &format!("p{n}"), &token).await.unwrap();
        assert_eq!(admitted.address, Ipv4Addr::new(10, 42, 0, n));
    }
    let exhausted = |quarantined| EnrollRefused::PoolExhausted { pool: "10.42.0.0/29".into(), quarantined };
    let before = state(&store).await;
    assert_eq!(enroll(&store, 7, "p7", &token).await, Err(exhausted(0)));
    assert_eq!(state(&store).await, before);

    store.remove_peer(&peer_id(5), NOW).await.unwrap();
    store.remove_peer(&peer_id(3), NOW + 1).await.unwrap();
    let last = NOW + QUARANTINE - 1;
    assert_eq!(enroll_at(&store, 7, "p7", &token, last).await, Err(exhausted(2)));
    let refused = enroll_at(&store, 7, "p7", &token, last).await.unwrap_err().to_string();
    assert!(refused.contains("2 rest"), "{refused}");
    assert_eq!(enroll_at(&store, 7, "p7", &token, last + 1).await.unwrap().address.octets()[3], 5);
    assert_eq!(enroll_at(&store, 8, "p8", &token, last + 2).await.unwrap().address.octets()[3], 3);
    assert_eq!(uses(&store, &token).await, 7, "the refused ones are not counted");
}

async fn token_of_long(store: &Store) -> Token {
    workspace(store, 1).await;
    token_of(store, 1, NewToken { expires_at: NOW + 1_000, ..new_token(1, 100) }).await
}

async fn an_address_that_another_latticed_freed_is_found(place: Place) {
    let (store, other) = (place.store("10.42.0.0/29").await, place.store("10.42.0.0/29").await);
    let token = token_of_long(&store).await;
    for n in 2..=6 {
        enroll(&store, n, &format!("p{n}"), &token).await.unwrap();
    }
    for n in [3, 4] {
        other.remove_peer(&peer_id(n), NOW).await.unwrap();
    }
    let later = NOW + QUARANTINE;
    assert_eq!(enroll_at(&other, 7, "p7", &token, later).await.unwrap().address.octets()[3], 3);
    assert_eq!(enroll_at(&store, 8, "p8", &token, later).await.unwrap().address.octets()[3], 4);
}

async fn fifty_at_once_get_fifty_addresses(place: Place) {
    let (store, other) = (place.store(POOL).await, place.store(POOL).await);
    let token = token(&store, 1, 50).await;
    let admitted = join_all((0..50).map(|n| {
        let (store, token) = (if n % 2 == 0 { store.clone() } else { other.clone() }, token.clone());
        async move { enroll(&store, n, &format!("p{n}"), &token).await.unwrap().address }
    }))
    .await;
    let mut admitted: Vec<_> = admitted.iter().map(|address| address.octets()[3]).collect();
    admitted.sort();
    assert_eq!(admitted, (2..52).collect::<Vec<_>>(), "each once, and none left out");
}

async fn a_pool_without_a_leased_address_is_refused(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 5).await;
    enroll(&store, 1, "a", &token).await.unwrap();
    store.close().await;
    let open = async || Store::open(&place.database, "10.43.0.0/16".parse().unwrap(), QUARANTINE).await;
    assert!(matches!(open().await, Err(StoreError::OutsidePool { .. })));

    let store = place.store(POOL).await;
    store.remove_peer(&peer_id(1), NOW).await.unwrap();
    store.close().await;
    assert!(open().await.is_ok(), "an address that rests binds nobody");
}

contract! {
    leases_the_lowest_address_that_does_not_rest,
    an_address_that_another_latticed_freed_is_found,
    fifty_at_once_get_fifty_addresses,
    a_pool_without_a_leased_address_is_refused,
}
