use super::{super::owner::Owner, *};

fn owner(account: &str) -> Owner {
    Owner {
        operator: "O".into(),
        system_account: "S".into(),
        account: account.into(),
        authority: "ca".into(),
        relay: "R".into(),
    }
}

async fn a_database_has_one_owner_and_one_pool(place: Place) {
    let (store, other) = (place.store(POOL).await, place.store("10.42.0.0/15").await);
    let (a, b) = (owner("A"), owner("B"));
    let (first, second) = tokio::join!(store.claim(&a), store.claim(&b));
    let (won, lost) = if first.is_ok() { ("A", second) } else { ("B", first) };
    let refused = lost.unwrap_err().to_string();
    assert!(refused.contains("another account.nk: copy"), "{refused}");
    store.claim(&owner(won)).await.unwrap();
    let refused = other.claim(&owner(won)).await.unwrap_err().to_string();
    assert!(refused.contains("give --pool 10.42.0.0/16") && refused.contains("adopt"), "{refused}");

    other.adopt(&owner("C")).await.unwrap();
    other.claim(&owner("C")).await.unwrap();
    assert!(matches!(other.claim(&owner(won)).await, Err(StoreError::OtherOwner(_))));
    assert!(matches!(store.claim(&owner("C")).await, Err(StoreError::OtherPool { .. })));
}

async fn one_that_is_older_than_relays_takes_the_first_key_that_comes(place: Place) {
    let store = place.store(POOL).await;
    store.claim(&owner("A")).await.unwrap();
    sqlx::query("UPDATE cluster SET relay = NULL").execute(&store.write).await.unwrap();
    store.claim(&Owner { relay: "first".into(), ..owner("A") }).await.unwrap();
    let refused = store.claim(&owner("A")).await.unwrap_err().to_string();
    assert!(refused.contains("another relay.nk: copy"), "{refused}");
}

contract! { a_database_has_one_owner_and_one_pool, one_that_is_older_than_relays_takes_the_first_key_that_comes }
