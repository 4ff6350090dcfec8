//! What members see of each other.

use serde_json::json;

use crate::{
    peer::{Peer, pushed},
    server::start,
};

#[tokio::test]
async fn a_newcomer_is_pushed_to_the_others_and_they_learn_where_it_is() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let a = Peer::enroll(&server, "a", &token).await;
    assert_eq!(a.grant.address, "10.42.0.2/32".parse().unwrap());
    let alone = a.netmap().await.unwrap();
    assert!(alone.peers.is_empty());
    assert_eq!((&alone.peer, alone.address), (a.id(), a.grant.address));
    assert_eq!(alone.workspace_name.as_deref(), Some("w"), "peers answer to <peer>.<workspace>.lattice");

    let mut pushes = a.pushes().await;
    let b = Peer::enroll(&server, "b", &token).await;
    let map = pushed(&mut pushes, "the newcomer", |map| !map.peers.is_empty()).await;
    assert!(map.generation > alone.generation);
    assert_eq!(map.peers[0].id, *b.id());
    assert_eq!(map.peers[0].allowed_ips, ["10.42.0.3/32".parse().unwrap()]);
    assert_eq!(map.peers[0].endpoints, ["192.0.2.1:51820".parse().unwrap()]);

    b.heartbeat(&["127.0.0.1:9", "0.0.0.0:9", "198.51.100.7:0", "198.51.100.7:51820"]).await.unwrap();
    let moved = pushed(&mut pushes, "its new endpoint", |m| m.generation > map.generation).await;
    assert_eq!(moved.peers[0].endpoints, ["198.51.100.7:51820".parse().unwrap()]);
}

#[tokio::test]
async fn who_leaves_is_offline_and_comes_back_as_the_same() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let a = Peer::enroll(&server, "a", &token).await;
    let b = Peer::enroll(&server, "b", &token).await;
    let mut pushes = a.pushes().await;

    b.leave().await.unwrap();
    let gone = pushed(&mut pushes, "b has left", |map| map.peers.iter().any(|p| !p.online)).await;
    assert!(gone.peers[0].endpoints.is_empty());

    b.heartbeat(&["198.51.100.7:51820"]).await.unwrap();
    let back = pushed(&mut pushes, "b is back", |map| map.generation > gone.generation).await;
    assert!(back.peers[0].online);
    assert_eq!(back.peers[0].allowed_ips, gone.peers[0].allowed_ips);
}

#[tokio::test]
async fn who_leaves_for_good_is_removed() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let a = Peer::enroll(&server, "a", &token).await;
    let b = Peer::enroll(&server, "b", &token).await;
    let mut pushes = a.pushes().await;

    // NATS closes the connection of whoever is removed, so the answer may not come.
    let _ = b.resign().await;
    pushed(&mut pushes, "b is gone", |map| map.peers.is_empty()).await;
    assert_eq!(server.admin("DELETE", &format!("/api/v1/peers/{}", b.id()), None).0, 404);
}

#[tokio::test]
async fn a_removed_peer_is_unknown_and_its_address_rests() {
    let (_dir, server) = start();
    let token = server.token("w", 3);
    let a = Peer::enroll(&server, "a", &token).await;
    let b = Peer::enroll(&server, "b", &token).await;
    let mut pushes = a.pushes().await;

    let path = format!("/api/v1/peers/{}", b.id());
    assert_eq!(server.admin("DELETE", &path, None).0, 204);
    assert_eq!(server.admin("DELETE", &path, None).0, 404);
    pushed(&mut pushes, "b is removed", |map| map.peers.is_empty()).await;

    let c = Peer::enroll(&server, "b", &token).await;
    assert_ne!(c.grant.address, b.grant.address);
    assert_ne!(c.id(), b.id());
}

#[tokio::test]
async fn workspaces_do_not_see_each_other() {
    let (_dir, server) = start();
    let a = Peer::enroll(&server, "a", &server.token("one", 1)).await;
    let b = Peer::enroll(&server, "a", &server.token("two", 1)).await;
    assert_ne!(a.grant.workspace, b.grant.workspace);
    assert_ne!(a.grant.address, b.grant.address);
    assert!(a.netmap().await.unwrap().peers.is_empty());
    assert!(b.netmap().await.unwrap().peers.is_empty());
}

#[tokio::test]
async fn peers_that_a_policy_keeps_apart_vanish_from_each_others_maps_and_come_back() {
    let (_dir, server) = start();
    let token = server.token("w", 3);
    let a = Peer::enroll(&server, "a", &token).await;
    let b = Peer::enroll(&server, "b", &token).await;
    Peer::enroll(&server, "c", &token).await;
    let mut pushes = [a.pushes().await, b.pushes().await];
    assert!(pushes.iter().all(|pushes| pushes.map.peers.len() == 2));

    let rule = |direction: &str, action: &str, rule: &str| json!({"direction": direction, "action": action, "rule": rule});
    let rules = [rule("ingress", "deny", "{name=b}"), rule("egress", "deny", "{name=b}")];
    let policy = json!({"name": "apart", "selector": "name=a", "rules": rules});
    let (status, made) =
        server.admin("POST", "/api/v1/policies", Some(json!({"workspace": "w", "policy": policy})));
    assert_eq!(status, 201, "{made}");
    for pushes in &mut pushes {
        let map = pushed(pushes, "one less", |map| map.peers.len() == 1).await;
        assert_eq!(map.peers[0].name.as_str(), "c");
    }
    assert_eq!(a.netmap().await.unwrap().peers, pushes[0].map.peers);

    assert_eq!(server.admin("DELETE", "/api/v1/policies/apart?workspace=w", None).0, 204);
    for pushes in &mut pushes {
        pushed(pushes, "both again", |map| map.peers.len() == 2).await;
    }
    let path = format!("/api/v1/peers/{}/labels", b.id());
    assert_eq!(server.admin("PUT", &path, Some(json!({"labels": {"role": "tool"}}))).0, 200);
    assert_eq!(a.netmap().await.unwrap().peers.len(), 2);
}
