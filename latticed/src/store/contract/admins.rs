use futures::future::join_all;

use super::{
    super::admin_tokens::{Exchange, NewAdminToken, Role},
    *,
};

const SECRET: [u8; 32] = [7; 32];

fn new_admin(id: &str, one_time: bool) -> NewAdminToken {
    NewAdminToken {
        id: id.into(),
        name: "ops".into(),
        secret_hash: SECRET,
        role: Role::Operator,
        workspace: Some(workspace_id(1)),
        one_time,
        expires_at: Some(NOW + 10),
        created_by: "root".into(),
    }
}

async fn an_admin_token_is_good_until_it_is_over_or_revoked(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    assert!(!store.has_admin_tokens().await.unwrap());
    let made = store.create_admin_token(&new_admin("b", false), NOW).await.unwrap();
    assert_eq!((made.role, made.workspace, made.one_time), (Role::Operator, Some(workspace_id(1)), false));
    assert!(store.has_admin_tokens().await.unwrap());
    let bearer =
        async |id, secret: [u8; 32], now| store.admin_bearer(id, &secret, now).await.unwrap().is_some();
    assert!(bearer("b", SECRET, NOW + 9).await);
    assert!(!bearer("b", SECRET, NOW + 10).await);
    assert!(!bearer("b", [8; 32], NOW).await);
    assert!(!bearer("c", SECRET, NOW).await);

    let endless =
        NewAdminToken { expires_at: None, workspace: None, role: Role::Admin, ..new_admin("a", false) };
    store.create_admin_token(&endless, NOW).await.unwrap();
    assert!(bearer("a", SECRET, i64::MAX).await);
    let first = store.admin_tokens(None, &Page { after: None, limit: 1 }).await.unwrap();
    assert_eq!(first.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let rest = store.admin_tokens(None, &Page { after: Some("a".into()), limit: 1 }).await.unwrap();
    assert_eq!(rest.len(), 1);

    assert!(store.revoke_admin_token("a", NOW).await.unwrap());
    assert!(store.revoke_admin_token("a", NOW + 1).await.unwrap());
    assert!(!store.revoke_admin_token("none", NOW).await.unwrap());
    assert!(!bearer("a", SECRET, NOW).await);
    assert_eq!(store.admin_tokens(None, &Page::all()).await.unwrap()[0].revoked_at, Some(NOW));
    assert!(store.has_admin_tokens().await.unwrap());
    assert!(Role::Admin > Role::Operator && Role::Operator > Role::Viewer);
}

async fn a_one_time_token_is_exchanged_once(place: Place) {
    let (store, other) = (place.store(POOL).await, place.store(POOL).await);
    workspace(&store, 1).await;
    store.create_admin_token(&new_admin("once", true), NOW).await.unwrap();
    store.create_admin_token(&new_admin("plain", false), NOW).await.unwrap();
    assert!(store.admin_bearer("once", &SECRET, NOW).await.unwrap().is_none(), "it only can be exchanged");
    let new = |n: u8| Exchange {
        id: format!("new{n}"),
        name: "new".into(),
        secret_hash: [n; 32],
        expires_at: None,
    };
    for (id, secret, now) in [("once", [8; 32], NOW), ("once", SECRET, NOW + 10), ("plain", SECRET, NOW)] {
        assert!(store.exchange_one_time(id, &secret, new(99), now).await.unwrap().is_none());
    }
    let got = join_all((0..20).map(|n| {
        let store = if n % 2 == 0 { &store } else { &other };
        async move { store.exchange_one_time("once", &SECRET, new(n), NOW).await.unwrap() }
    }))
    .await;
    let got: Vec<_> = got.into_iter().flatten().collect();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].name, "new");
    assert_eq!(store.admin_tokens(Some(&workspace_id(1)), &Page::all()).await.unwrap().len(), 3);
    assert_eq!((got[0].role, got[0].created_by.as_str()), (Role::Operator, "once"));
    assert_eq!((got[0].workspace.clone(), got[0].one_time), (Some(workspace_id(1)), false));
    assert_eq!(store.admin_tokens(None, &Page::all()).await.unwrap().len(), 3);
}

contract! { an_admin_token_is_good_until_it_is_over_or_revoked, a_one_time_token_is_exchanged_once }
