use super::{
    super::{columns::Prefix, events::NewEvent, peers::Address},
    *,
};

/// Reads page by page, and proves that each says whether more follows.
async fn pages<T>(limit: u32, key: impl Fn(&T) -> String, read: impl AsyncFn(Page) -> Vec<T>) -> Vec<String> {
    let (mut all, mut after) = (vec![], None);
    loop {
        let rows = read(Page { after: after.clone(), limit }).await;
        let keys: Vec<_> = rows.iter().take(limit as usize).map(&key).collect();
        assert!(rows.len() <= limit as usize + 1);
        all.extend(keys);
        if rows.len() <= limit as usize {
            return all;
        }
        after = all.last().cloned();
    }
}

async fn every_list_is_read_in_pages(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 100).await;
    for n in 1..=7 {
        enroll(&store, n, &format!("p{n}"), &token).await.unwrap();
        workspace(&store, n + 1).await;
        token_of(&store, n + 1, new_token(n + 1, 1)).await;
    }
    let mut ids: Vec<_> = (1..=7).map(|n| peer_id(n).to_string()).collect();
    ids.sort();
    let peers = |workspace: Option<WorkspaceId>| {
        let store = &store;
        async move |page: Page| store.peers(workspace.as_ref(), &page).await.unwrap()
    };
    for limit in [1, 2, 3, 7, 8, 100] {
        let read = pages(limit, |row: &crate::store::peers::PeerRow| row.id.to_string(), peers(None)).await;
        assert_eq!(read, ids, "{limit}");
        let read = pages(
            limit,
            |row: &crate::store::tokens::TokenRow| row.id.clone(),
            async |page| store.tokens(None, &page).await.unwrap(),
        );
        assert_eq!(read.await.len(), 8);
        let read = pages(
            limit,
            |row: &crate::store::workspaces::Workspace| row.name.to_string(),
            async |page| store.workspaces(&page).await.unwrap(),
        );
        assert_eq!(read.await, (1..=8).map(|n| format!("w{n}")).collect::<Vec<_>>());
    }
    assert_eq!(store.peers(Some(&workspace_id(2)), &Page::all()).await.unwrap().len(), 0);
    assert_eq!(store.tokens(Some(&workspace_id(2)), &Page::all()).await.unwrap().len(), 1);
    assert_eq!(store.workspace("w1").await.unwrap().unwrap().id, workspace_id(1));
    assert_eq!(store.workspace(workspace_id(1).as_str()).await.unwrap().unwrap().name.as_str(), "w1");
    assert!(store.workspace("none").await.unwrap().is_none());
    let taken =
        store.create_workspace(workspace_id(99), "w1".parse().unwrap(), prefix(99), NOW).await.unwrap();
    assert!(taken.is_none());
}

async fn a_workspace_has_a_prefix_of_its_own_and_its_peers_addresses_in_it(place: Place) {
    let store = place.store(POOL).await;
    let tokens = [token(&store, 1, 100).await, token(&store, 2, 100).await];
    for (n, token) in (1..).zip(&tokens) {
        enroll(&store, n, "same", token).await.unwrap();
        let row = store.peer(&peer_id(n)).await.unwrap().unwrap();
        let Address(v4) = row.address;
        let expected = Overlay::new(store.pool.net(), prefix(n)).unwrap().v6(v4);
        assert_eq!(row.address6(), expected);
        assert_eq!(
            store.workspace(workspace_id(n).as_str()).await.unwrap().unwrap().prefix,
            Prefix(prefix(n))
        );
        let map = store.netmap(&peer_id(n), NOW).await.unwrap().unwrap();
        assert_eq!((map.prefix, map.address.addr()), (prefix(n), v4));
    }
    let shared = store.create_workspace(workspace_id(9), "w9".parse().unwrap(), prefix(1), NOW).await;
    assert!(shared.is_err(), "two workspaces have one prefix");
}

async fn a_page_is_not_shifted_by_rows_that_go(place: Place) {
    let store = place.store(POOL).await;
    let token = token(&store, 1, 100).await;
    for n in 1..=4 {
        enroll(&store, n, &format!("p{n}"), &token).await.unwrap();
    }
    store.remove_peer(&peer_id(2), NOW).await.unwrap();
    let page = Page { after: Some(peer_id(2).to_string()), limit: 1 };
    let rows: Vec<_> = store.peers(None, &page).await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(rows, [peer_id(3), peer_id(4)]);
}

async fn the_newest_events_are_kept(place: Place) {
    let store = place.store(POOL).await;
    let event = |n: u8| NewEvent {
        workspace: n.is_multiple_of(2).then(|| workspace_id(1)),
        kind: "token.refused".into(),
        actor: "somebody".into(),
        detail: format!("the {n}th"),
    };
    for n in 0..6 {
        store.record_event(&event(n), NOW + i64::from(n)).await.unwrap();
    }
    let all = store.events(None, &Page::all()).await.unwrap();
    let said: Vec<_> = all.iter().map(|row| (row.at, row.event.clone())).collect();
    assert_eq!(said, (0..6).rev().map(|n| (NOW + i64::from(n), event(n))).collect::<Vec<_>>());
    let page = Page { after: Some(all[1].seq.to_string()), limit: 2 };
    assert_eq!(store.events(None, &page).await.unwrap(), all[2..5]);
    assert_eq!(store.events(Some(&workspace_id(1)), &Page::all()).await.unwrap().len(), 3);
    let nonsense = Page { after: Some("'; DROP".into()), limit: 2 };
    assert!(store.events(None, &nonsense).await.unwrap().is_empty());

    store.prune_events(6).await.unwrap();
    assert_eq!(store.events(None, &Page::all()).await.unwrap().len(), 6);
    store.prune_events(2).await.unwrap();
    let kept = store.events(None, &Page::all()).await.unwrap();
    assert_eq!(kept, all[..4], "two of the workspace, two of none");
    store.record_event(&event(9), NOW).await.unwrap();
    assert!(store.events(None, &Page::all()).await.unwrap()[0].seq > all[0].seq);
}

contract! { every_list_is_read_in_pages, a_workspace_has_a_prefix_of_its_own_and_its_peers_addresses_in_it, a_page_is_not_shifted_by_rows_that_go, the_newest_events_are_kept }
