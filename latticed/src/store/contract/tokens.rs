use lattice_wire::Token;

use super::{super::tokens::TokenRefused, *};

async fn says_why_it_refuses(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let token = Token::from_random([1; 7], [2; 25]);
    let check = async |token: &Token, now| store.check_token(token, now).await.unwrap();
    let bearer = async |token: &Token, now| store.bearer(token, now).await.unwrap().is_some();

    assert_eq!(check(&token, NOW).await, Err(TokenRefused::Unknown));
    store.create_token(&token, new_token(1, 1), NOW).await.unwrap();
    assert_eq!(check(&token, NOW + 9).await, Ok(()));
    assert!(bearer(&token, NOW + 9).await);
    assert_eq!(check(&token, NOW + 10).await, Err(TokenRefused::Expired));
    assert!(!bearer(&token, NOW + 10).await);
    let same_id = Token::from_random([1; 7], [3; 25]);
    assert_eq!(check(&same_id, NOW).await, Err(TokenRefused::Unknown));
    assert!(!bearer(&same_id, NOW).await);
    let unknown = EnrollRefused::Token(TokenRefused::Unknown);
    assert_eq!(enroll(&store, 1, "a", &same_id).await, Err(unknown));

    assert!(enroll(&store, 1, "a", &token).await.is_ok());
    assert_eq!(check(&token, NOW).await, Err(TokenRefused::Used));
    assert!(bearer(&token, NOW).await, "spent is still known");

    assert!(store.revoke_token(token.id(), NOW).await.unwrap());
    assert!(store.revoke_token(token.id(), NOW + 5).await.unwrap(), "idempotent");
    assert_eq!(store.token(token.id()).await.unwrap().unwrap().revoked_at, Some(NOW));
    assert_eq!(check(&token, NOW).await, Err(TokenRefused::Revoked));
    assert!(!bearer(&token, NOW).await);
    assert!(!store.revoke_token("none", NOW).await.unwrap());
    assert!(store.token("none").await.unwrap().is_none());
}

async fn a_token_that_does_not_admit_costs_nothing(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let prefixed = NewToken { name_prefix: Some("ci-".into()), ..new_token(1, 1) };
    let prefixed = token_of(&store, 1, prefixed).await;
    let none = token_of(&store, 2, new_token(1, 0)).await;
    let revoked = token_of(&store, 3, new_token(1, 1)).await;
    store.revoke_token(revoked.id(), NOW).await.unwrap();
    let before = state(&store).await;

    let refused = async |name: &str, token: &Token, now| {
        let refused = enroll_at(&store, 9, name, token, now).await.unwrap_err();
        assert_eq!(state(&store).await, before, "{refused}");
        refused
    };
    assert_eq!(refused("a", &prefixed, NOW).await, EnrollRefused::Prefix("ci-".into()));
    assert_eq!(refused("ci-a", &prefixed, NOW + 10).await, TokenRefused::Expired.into());
    assert_eq!(refused("a", &none, NOW).await, TokenRefused::Used.into());
    assert_eq!(refused("a", &revoked, NOW).await, TokenRefused::Revoked.into());
    assert!(enroll(&store, 9, "ci-a", &prefixed).await.is_ok());
}

async fn what_a_token_says_its_peers_are(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let labels = BTreeMap::from([("team".to_owned(), "\"red\" ☃".to_owned())]);
    let new = NewToken {
        preset: Some("sandboxed".into()),
        labels: labels.clone(),
        peer_ttl: Some(100),
        ..new_token(1, 1)
    };
    let token = token_of(&store, 1, new).await;
    let admitted = enroll(&store, 1, "a", &token).await.unwrap();
    assert_eq!((admitted.not_after, admitted.again), (Some(NOW + 100), false));
    let row = store.peer(&admitted.peer).await.unwrap().unwrap();
    assert_eq!((row.preset.as_deref(), &row.labels), (Some("sandboxed"), &labels));
    assert_eq!((row.ttl, row.expires_at), (Some(100), Some(NOW + 100)));
    assert_eq!(row.token.as_deref(), Some(token.id()));
    assert_eq!(row.address.0, admitted.address);
    let row = store.token(token.id()).await.unwrap().unwrap();
    assert_eq!((row.uses, row.labels, row.created_by.as_str()), (1, labels, "test"));
}

contract! {
    says_why_it_refuses,
    a_token_that_does_not_admit_costs_nothing,
    what_a_token_says_its_peers_are,
}
