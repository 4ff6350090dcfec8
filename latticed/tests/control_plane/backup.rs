//! A backup is a data directory: latticed goes on from it, and peers that know more than it are told everything.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Output},
};

use lattice_wire::MapUpdate;
use nix::sys::signal::Signal;

use crate::{
    cluster,
    peer::Peer,
    server::{Server, start},
};

pub fn backup(data: &Path, to: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
    command.arg("--data-dir").arg(data).args(more).arg("backup").arg(to).output().unwrap()
}

#[tokio::test]
async fn peers_go_on_with_a_latticed_that_was_restored() {
    let (data, server) = start();
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("copy");
    let token = server.token("w", 3);
    let a = Peer::enroll(&server, "a", &token).await;
    let b = Peer::enroll(&server, "b", &token).await;

    let done = backup(data.path(), &copy, &[]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o700);
    for file in fs::read_dir(&copy).unwrap().map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{file:?}");
    }
    let again = backup(data.path(), &copy, &[]);
    assert_eq!(again.status.code(), Some(5), "nothing is overwritten: {again:?}");

    // After the backup: whoever comes now is forgotten.
    let forgotten = Peer::enroll(&server, "forgotten", &token).await;
    let newest = a.netmap().await.unwrap();
    assert_eq!(newest.peers.len(), 2);
    let (grant, key) = (a.grant.clone(), a.key.clone());
    server.end(Signal::SIGKILL);

    let server = Server::start(&copy, &[]);
    let a = Peer::resume(&server, grant, key).await;
    let MapUpdate::Full(map) = a.map_since(Some(newest.version())).await.unwrap() else {
        panic!("not the whole map");
    };
    assert!(map.generation < newest.generation && map.epoch != newest.epoch);
    assert_eq!(map.peers.iter().map(|peer| &peer.id).collect::<Vec<_>>(), [b.id()]);

    // Also where its history has overtaken what the peer has: what is new since then would leave the forgotten one in its map.
    let c = Peer::enroll(&server, "c", &token).await;
    for port in 1..9 {
        c.heartbeat(&[&format!("192.0.2.7:{port}")]).await.unwrap();
    }
    let MapUpdate::Full(map) = a.map_since(Some(newest.version())).await.unwrap() else {
        panic!("not the whole map");
    };
    assert!(map.generation > newest.generation);
    let peers: BTreeSet<_> = map.peers.iter().map(|peer| &peer.id).collect();
    assert_eq!(peers, BTreeSet::from([b.id(), c.id()]));
    assert_eq!(a.map_since(Some(map.version())).await, Ok(MapUpdate::Current));
    let unknown = Peer::resume(&server, forgotten.grant.clone(), forgotten.key.clone()).await;
    assert!(unknown.netmap().await.is_err());
}

#[tokio::test]
async fn of_a_latticed_on_postgres_it_holds_the_keys() {
    let Some(cluster) = cluster::shared() else { return };
    let place = tempfile::tempdir().unwrap();
    let (data, copy) = (place.path().join("data"), place.path().join("copy"));
    let options = ["--database-url", &cluster.database().await];
    let _server = Server::start(&data, &options);
    let done = backup(&data, &copy, &options);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("pg_dump"), "{done:?}");
    assert!(copy.join("account.nk").exists() && !copy.join("lattice.db").exists());
    assert_eq!(fs::read(data.join("ca.key")).unwrap(), fs::read(copy.join("ca.key")).unwrap());
}

#[test]
fn a_backup_that_fails_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("copy");
    let done = backup(&place.path().join("data"), &copy, &[]);
    assert_eq!(done.status.code(), Some(5), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("operator.nk"), "{done:?}");
    assert!(!copy.exists());
}
