use super::{super::policies::NewPolicy, *};

fn policy(id: &str, name: &str, expires_at: Option<i64>) -> NewPolicy {
    NewPolicy {
        id: id.into(),
        workspace: workspace_id(1),
        name: name.into(),
        spec: format!("{{\"of\":\"{id}\"}}"),
        expires_at,
    }
}

async fn policies_make_maps_newer(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 1).await;
    workspace(&store, 2).await;
    enroll(&store, 1, "a", &token).await.unwrap();
    let generation = async || store.netmap(&peer_id(1), NOW).await.unwrap().unwrap().generation;
    let mut last = generation().await;
    let mut grew = async || {
        let now = generation().await;
        std::mem::replace(&mut last, now) < now
    };
    let of = workspace_id(1);

    let made = store.put_policy(policy("2", "b", None), NOW).await.unwrap().unwrap();
    assert!(grew().await);
    assert!(store.put_policy(policy("3", "b", None), NOW).await.unwrap().is_none(), "the name is taken");
    assert!(!grew().await);
    assert_eq!(store.policy(&of, "b", NOW).await.unwrap().unwrap(), made);
    assert_eq!(made.spec, "{\"of\":\"2\"}");
    let elsewhere = NewPolicy { workspace: workspace_id(2), ..policy("4", "b", None) };
    assert!(store.put_policy(elsewhere, NOW).await.unwrap().is_some());
    assert!(!grew().await);

    store.put_policy(policy("1", "a", Some(NOW + 10)), NOW).await.unwrap().unwrap();
    assert!(grew().await);
    let names = async |now| {
        let rows = store.list_policies(Some(&of), &Page::all(), now).await.unwrap();
        assert_eq!(store.snapshot(&of, now).await.unwrap().policies(), rows);
        rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
    };
    assert_eq!(names(NOW + 9).await, ["a", "b"]);
    assert_eq!(names(NOW + 10).await, ["b"]);
    assert!(store.policy(&of, "a", NOW + 10).await.unwrap().is_none());

    assert!(store.expire_policies(NOW + 9).await.unwrap().is_empty());
    assert!(!grew().await);
    assert_eq!(store.expire_policies(NOW + 10).await.unwrap(), [workspace_id(1)]);
    assert!(grew().await);
    assert!(store.expire_policies(NOW + 10).await.unwrap().is_empty());

    assert!(store.remove_policy(&of, "b").await.unwrap() && grew().await);
    assert!(!store.remove_policy(&of, "b").await.unwrap() && !grew().await);
    assert_eq!(store.list_policies(Some(&workspace_id(2)), &Page::all(), NOW).await.unwrap().len(), 1);
}

async fn a_policy_that_is_over_keeps_no_name(place: Place) {
    let store = place.store(POOL).await;
    workspace(&store, 1).await;
    store.put_policy(policy("1", "a", Some(NOW + 10)), NOW).await.unwrap().unwrap();
    assert!(store.put_policy(policy("2", "a", None), NOW + 9).await.unwrap().is_none());
    assert!(store.put_policy(policy("2", "a", None), NOW + 10).await.unwrap().is_some());
}

contract! { policies_make_maps_newer, a_policy_that_is_over_keeps_no_name }
