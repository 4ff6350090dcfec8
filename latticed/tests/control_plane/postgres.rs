//! The whole of it on Postgres. What the store promises there is tested with the store.

use std::{fs, os::unix::fs::PermissionsExt as _};

use nix::sys::signal::Signal;

use crate::{cluster, peer::Peer, server::Server};

#[tokio::test]
async fn peers_survive_a_restart_in_a_database_whose_url_is_in_a_file() {
    let Some(cluster) = cluster::shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (data, url) = (dir.path().join("data"), dir.path().join("url"));
    fs::write(&url, cluster.database().await + "\n").unwrap();
    fs::set_permissions(&url, fs::Permissions::from_mode(0o600)).unwrap();
    let options = ["--database-url-file", url.to_str().unwrap()];

    let server = Server::start(&data, &options);
    let token = server.token("w", 2);
    let peer = Peer::enroll(&server, "a", &token).await;
    let (grant, key) = (peer.grant.clone(), peer.key.clone());
    server.end(Signal::SIGKILL);
    assert!(!data.join("lattice.db").exists());

    let server = Server::start(&data, &options);
    let peer = Peer::resume(&server, grant.clone(), key).await;
    assert_eq!(peer.netmap().await.unwrap().address, grant.address);
    let other = Peer::enroll(&server, "b", &token).await;
    assert_eq!(peer.netmap().await.unwrap().peers[0].id, *other.id());
}
