use super::{
    super::{
        presence::Heard,
        reserve::{NewReservation, NewStatic, OwnToken},
        tokens::TokenRefused,
    },
    *,
};
use crate::keys::random;

pub(super) fn reservation(n: u8, name: &str) -> NewReservation {
    NewReservation {
        id: peer_id(n),
        workspace: workspace_id(1),
        name: name.parse().unwrap(),
        kind: PeerKind::Sandbox,
        preset: Some("sandboxed".into()),
        labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
        agent_type: Some("coder".into()),
        ttl: Some(100),
    }
}

pub(super) fn own() -> OwnToken {
    let token = Token::from_random(random(), random());
    OwnToken { token, expires_at: NOW + 1_000, created_by: "test".into() }
}

async fn a_reserved_peer_is_nowhere_until_its_token_is_redeemed(place: Place) {
    let store = place.store(POOL).await;
    let any = token(&store, 1, 5).await;
    let other = enroll(&store, 2, "other", &any).await.unwrap().peer;
    let address =
        store.reserve(&reservation(1, "agent"), None, own(), None, NOW).await.unwrap().unwrap().address;
    let bound = NewToken { peer: Some(peer_id(1)), ..new_token(1, 1) };
    let bound = token_of(&store, 2, bound).await;

    let row = store.peer(&peer_id(1)).await.unwrap().unwrap();
    assert!(row.wireguard_public_key.is_none() && !row.online && row.address.0 == address);
    assert_eq!(store.netmap(&peer_id(1), NOW).await.unwrap(), None);
    assert!(store.netmap(&other, NOW).await.unwrap().unwrap().peers.is_empty());
    assert_eq!(store.heard(&peer_id(1), &Endpoints::default(), NOW).await.unwrap(), Heard::Unknown);
    assert_eq!(store.leave(&peer_id(1), NOW).await.unwrap(), None);
    assert_eq!(store.renew(&peer_id(1), NOW).await.unwrap(), None);
    let before = state(&store).await;
    assert_eq!(enroll(&store, 3, "agent", &any).await, Err(EnrollRefused::NameTaken("agent".into())));
    assert_eq!(enroll(&store, 3, "else", &bound).await, Err(EnrollRefused::Reserved("agent".into())));
    assert_eq!(enroll(&store, 2, "agent", &bound).await, Err(EnrollRefused::KeyTaken));
    assert_eq!(state(&store).await, before);

    let admitted = enroll_at(&store, 3, "agent", &bound, NOW + 5).await.unwrap();
    assert_eq!((&admitted.peer, admitted.address), (&peer_id(1), address));
    assert_eq!(admitted.not_after, Some(NOW + 105), "its time begins with its admission");
    let row = store.peer(&peer_id(1)).await.unwrap().unwrap();
    assert_eq!((row.preset.as_deref(), row.agent_type.as_deref()), (Some("sandboxed"), Some("coder")));
    assert!(row.online && row.labels["team"] == "red");
    let tool = BTreeMap::from([("role".to_owned(), "tool".to_owned())]);
    store.set_labels(&other, &tool).await.unwrap();
    assert_eq!(store.netmap(&other, NOW).await.unwrap().unwrap().peers.len(), 1);
    let again = enroll_at(&store, 3, "agent", &bound, NOW + 6).await;
    assert_eq!(again, Ok(Admitted { again: true, ..admitted }));
    assert_eq!(enroll(&store, 4, "agent", &bound).await, Err(TokenRefused::Used.into()));
}

async fn a_reservation_that_is_gone_admits_nobody(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    store.reserve(&reservation(1, "agent"), None, own(), None, NOW).await.unwrap().unwrap();
    let new = NewToken { peer: Some(peer_id(1)), expires_at: NOW + 1_000, ..new_token(1, 2) };
    let bound = token_of(&store, 1, new).await;
    let over = enroll_at(&store, 3, "agent", &bound, NOW + 100).await;
    assert_eq!(over, Err(EnrollRefused::NotReserved));
    assert_eq!(store.expire_peers(NOW + 100).await.unwrap(), [(peer_id(1), workspace_id(1))]);
    assert_eq!(enroll(&store, 3, "agent", &bound).await, Err(EnrollRefused::NotReserved));
    assert_eq!(uses(&store, &bound).await, 0);
}

async fn a_reservation_without_a_time_is_kept_for_a_day(place: Place) {
    const DAY: i64 = 86_400;
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    let new = |n, name: &str| NewReservation { ttl: None, ..reservation(n, name) };
    let kept = store.reserve(&new(1, "late"), None, own(), None, NOW).await.unwrap().unwrap();
    assert_eq!(kept.not_after, Some(NOW + DAY));
    store.reserve(&new(2, "never"), None, own(), None, NOW).await.unwrap().unwrap();
    let bound = NewToken { peer: Some(peer_id(1)), expires_at: NOW + DAY, ..new_token(1, 1) };
    let bound = token_of(&store, 1, bound).await;
    let admitted = enroll_at(&store, 3, "late", &bound, NOW + DAY - 1).await.unwrap();
    assert_eq!(admitted.not_after, None, "who came in time stays");
    assert_eq!(store.expire_peers(NOW + DAY).await.unwrap(), [(peer_id(2), workspace_id(1))]);
}

async fn a_reservation_takes_a_use_of_the_token_that_permits_it(place: Place) {
    let store = place.store(POOL).await;
    let limits = NewToken { name_prefix: Some("ci-".into()), peer_ttl: Some(50), ..new_token(1, 1) };
    workspace(&store, 1).await;
    let limited = token_of(&store, 1, limits).await;
    let before = state(&store).await;
    let refused = store.reserve(&reservation(1, "b"), Some(&limited), own(), None, NOW).await.unwrap();
    assert_eq!(refused, Err(EnrollRefused::Prefix("ci-".into())));
    assert_eq!(state(&store).await, before);
    let reserved =
        store.reserve(&reservation(1, "ci-b"), Some(&limited), own(), None, NOW).await.unwrap().unwrap();
    assert_eq!(reserved.not_after, Some(NOW + 50));
    assert_eq!(uses(&store, &limited).await, 1);
    let used = store.reserve(&reservation(2, "ci-c"), Some(&limited), own(), None, NOW).await.unwrap();
    assert_eq!(used, Err(TokenRefused::Used.into()));
}

async fn a_static_peer_is_a_member_without_nats(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    workspace(&store, 2).await;
    let endpoints = Endpoints(vec!["192.0.2.1:1".parse().unwrap()]);
    let new = |n, name: &str| NewStatic {
        peer: reservation(n, name),
        wireguard_public_key: WgPublicKey([n; 32]),
        endpoints: endpoints.clone(),
    };
    let admitted = store.admit_static(&new(1, "a"), None, own(), None, NOW).await.unwrap().unwrap();
    assert_eq!(admitted.not_after, Some(NOW + 100));
    let row = store.peer(&peer_id(1)).await.unwrap().unwrap();
    assert_eq!((row.nats_public_key, row.token, row.endpoints), (None, None, endpoints.clone()));

    let limited = NewToken {
        preset: Some("strict".into()),
        labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
        name_prefix: Some("ci-".into()),
        peer_ttl: Some(50),
        ..new_token(1, 1)
    };
    let limited = token_of(&store, 1, limited).await;
    let foreign = token_of(&store, 2, new_token(2, 1)).await;
    let before = state(&store).await;
    let refused = async |peer: &NewStatic, token: Option<&Token>| {
        let refused = store.admit_static(peer, token, own(), None, NOW).await.unwrap().unwrap_err();
        assert_eq!(state(&store).await, before, "{refused}");
        refused
    };
    assert_eq!(refused(&new(2, "b"), Some(&foreign)).await, TokenRefused::Unknown.into());
    assert_eq!(refused(&new(2, "b"), Some(&limited)).await, EnrollRefused::Prefix("ci-".into()));
    assert_eq!(refused(&new(2, "a"), None).await, EnrollRefused::NameTaken("a".into()));
    let same_key = NewStatic { peer: reservation(2, "b"), ..new(1, "a") };
    assert_eq!(refused(&same_key, None).await, EnrollRefused::KeyTaken);
    // A token of its own that cannot be written down: then the peer is not there either.
    let twice = OwnToken { token: limited.clone(), ..own() };
    assert!(store.admit_static(&new(2, "ci-b"), Some(&limited), twice, None, NOW).await.is_err());
    assert_eq!(state(&store).await, before);

    let admitted =
        store.admit_static(&new(2, "ci-b"), Some(&limited), own(), None, NOW).await.unwrap().unwrap();
    assert_eq!(admitted.not_after, Some(NOW + 50));
    let row = store.peer(&peer_id(2)).await.unwrap().unwrap();
    assert_eq!((row.preset.as_deref(), row.labels["team"].as_str()), (Some("strict"), "blue"));
    assert_eq!((row.token.as_deref(), row.agent_type.as_deref()), (Some(limited.id()), Some("coder")));
    let used = store.admit_static(&new(3, "ci-c"), Some(&limited), own(), None, NOW).await.unwrap();
    assert_eq!(used, Err(TokenRefused::Used.into()));
    assert_eq!(store.renew(&peer_id(2), NOW + 1).await.unwrap().unwrap().not_after, Some(NOW + 51));
}

contract! {
    a_reserved_peer_is_nowhere_until_its_token_is_redeemed,
    a_reservation_that_is_gone_admits_nobody, a_reservation_without_a_time_is_kept_for_a_day, a_reservation_takes_a_use_of_the_token_that_permits_it,
    a_static_peer_is_a_member_without_nats,
}
