//! Three latticed on one Postgres and a cluster of three nats-servers: whichever of them is killed, what was promised holds.

mod load;

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use futures::StreamExt as _;
use lattice_wire::{Applied, MapUpdate, NetMap, message::Signaling, subject};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    cluster,
    hostile::refuses,
    nats_cluster::{Node, certify},
    peer::{PATIENCE, Peer, Pushes, connect, public_key},
    server::{Server, wait_until},
    start::fails,
};
use load::{AGENTS, Load, PEERS, RIVALS};

/// Options of every latticed.
struct Options(Vec<String>);

impl Options {
    fn start(&self, data: &Path) -> Server {
        Server::start(data, &self.0.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whichever_is_killed_what_was_promised_holds() {
    let Some(postgres) = cluster::shared() else { return };
    let database = postgres.database().await;
    let dir = tempfile::tempdir().unwrap();
    let data = ["data", "second", "third"].map(|name| dir.path().join(name));
    certify(dir.path());
    // The first start leaves behind what the servers must include; the others get its keys.
    assert_eq!(fails(&data[0], &["--database-url", &database, "--nats-url", "nats://127.0.0.1:1"]).0, 7);
    for other in &data[1..] {
        let copied = crate::backup::backup(&data[0], other, &["--database-url", &database]);
        assert!(copied.status.success(), "{copied:?}");
    }
    let first = Node::start(dir.path(), "one", None);
    let route = first.route.clone();
    let mut nodes =
        [first, Node::start(dir.path(), "two", Some(&route)), Node::start(dir.path(), "three", Some(&route))];
    let urls = nodes.iter().map(|node| node.client.as_str()).collect::<Vec<_>>().join(",");
    let ca = dir.path().join("ca.pem").to_str().unwrap().to_owned();
    let options = ["--database-url", &database, "--nats-url", &urls, "--nats-ca", &ca];
    let options = Options(options.map(str::to_owned).to_vec());
    let mut servers = data.iter().map(|data| options.start(data)).collect::<Vec<_>>();
    let admin = servers[0].api_token();
    assert_eq!(servers[0].signaling().nats_url, urls);

    let load = Load::start(&servers, &admin);
    load.enrolled(6).await;
    servers.remove(0).end(Signal::SIGKILL);
    load.enrolled(12).await;
    nodes[0].kill();
    load.enrolled(18).await;
    servers.insert(0, options.start(&data[0]));
    nodes[0].run();
    load.now(&servers);
    load.enrolled(24).await;
    servers.remove(1).end(Signal::SIGKILL);
    load.enrolled(PEERS + AGENTS).await;
    servers.insert(1, options.start(&data[1]));
    let mut done = load.end().await;

    for server in &servers {
        wait_until("it is ready", || server.request("GET", "/readyz", None, None).0 == 200);
    }
    let listed = servers[2].request("GET", "/api/v1/peers?limit=500", Some(&admin), None).1["items"].clone();
    let listed = listed.as_array().unwrap();
    let all = |key: &str| listed.iter().map(|peer| peer[key].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(listed.len(), PEERS + AGENTS + 1, "each once, and one of {RIVALS} with the one-time token");
    assert_eq!((all("name").len(), all("address").len()), (listed.len(), listed.len()));
    for (name, id) in &done.acknowledged {
        assert_eq!(
            listed.iter().filter(|peer| peer["name"] == *name && peer["id"] == *id).count(),
            1,
            "{name}"
        );
    }
    assert_eq!(listed.iter().filter(|peer| peer["name"].as_str().unwrap().starts_with("rival")).count(), 1);

    let mut connection = PgConnection::connect(&database).await.unwrap();
    let (generation,): (i64,) =
        sqlx::query_as("SELECT generation FROM workspaces").fetch_one(&mut connection).await.unwrap();
    for peer in &done.peers {
        peer.answered().await;
        let map = peer.netmap().await.unwrap();
        assert_eq!(map.generation, generation.cast_unsigned());
        let seen: BTreeSet<_> = map
            .peers
            .iter()
            .map(|peer| (peer.id.to_string(), peer.allowed_ips[0].addr().to_string()))
            .collect();
        let others = listed.iter().filter(|listed| listed["id"] != peer.id().as_str());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        assert_eq!(seen, others.map(|peer| (text(&peer["id"]), text(&peer["address"]))).collect());
    }

    // Whichever latticed changes something, whoever is connected to whichever NATS server is told.
    let mut following = vec![];
    for peer in &done.peers[..6] {
        following.push(peer.pushes().await);
    }
    for (n, server) in servers.iter().enumerate() {
        let name = format!("pushed-{n}");
        let body = json!({"agentName": name, "workspaceId": "w", "publicKey": public_key()});
        assert_eq!(server.request("POST", "/api/v1/agent-enroll", Some(&admin), Some(body)).0, 201);
        for (peer, pushes) in done.peers.iter().zip(&mut following) {
            follow(peer, pushes, |map| map.peers.iter().any(|peer| peer.name.as_str() == name)).await;
        }
    }

    // Whichever latticed removes somebody, every NATS server refuses it.
    for server in &servers {
        let removed = done.peers.pop().unwrap();
        let path = format!("/api/v1/peers/{}", removed.id());
        assert_eq!(server.request("DELETE", &path, Some(&admin), None).0, 204);
        for node in &nodes {
            let at = Signaling { nats_url: node.client.clone(), ..server.signaling() };
            timeout(PATIENCE, refused(&at, &removed)).await.expect("it is refused");
        }
    }
    drop(done);
    spawn_blocking(move || drop(servers)).await.unwrap();
}

/// Takes pushes, as a peer does, until the map fits. After a gap it asks; nothing else makes it ask.
async fn follow(peer: &Peer, pushes: &mut Pushes, fits: impl Fn(&NetMap) -> bool) {
    let wait = async {
        while !fits(&pushes.map) {
            let push = pushes.subscriber.next().await.unwrap();
            match serde_json::from_slice(&push.payload).unwrap() {
                MapUpdate::Full(map) => pushes.map = map,
                MapUpdate::Delta(delta) => {
                    if pushes.map.apply(delta) == Applied::Gap {
                        pushes.map = peer.netmap().await.unwrap();
                    }
                }
                MapUpdate::Current => panic!("a push without news"),
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("a push arrives");
}

/// Ready when the server refuses the peer: in a cluster they learn of it one after the other.
async fn refused(at: &Signaling, peer: &Peer) {
    let inbox = subject::inbox(peer.id());
    let key = Arc::clone(&peer.key);
    while !refuses(connect(at, &peer.grant.nats_jwt, &key, &inbox).await.err()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
