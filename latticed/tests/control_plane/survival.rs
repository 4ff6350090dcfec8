//! Bad days: whatever is killed, what is left is right.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

use nix::sys::signal::{Signal, kill};

use crate::{
    peer::{Peer, pushed},
    server::{Server, start, wait_until},
};

#[tokio::test]
async fn a_killed_nats_server_is_replaced_and_everybody_reconnects() {
    let (_dir, server) = start();
    let token = server.token("w", 2);
    let a = Peer::enroll(&server, "a", &token).await;
    let mut pushes = a.pushes().await;
    let before = server.nats_pid().unwrap();

    kill(before, Signal::SIGKILL).unwrap();
    wait_until("another nats-server", || server.nats_pid().is_some_and(|pid| pid != before));
    wait_until("healthy again", || server.request("GET", "/readyz", None, None).0 == 200);
    let b = Peer::enroll(&server, "b", &token).await;
    let map = a.netmap().await.unwrap();
    assert_eq!(map.peers[0].id, *b.id());
    b.heartbeat(&["198.51.100.7:51820"]).await.unwrap();
    pushed(&mut pushes, "through the old subscription", |m| m.generation > map.generation).await;
}

#[test]
fn a_nats_server_that_does_not_come_up_again_is_said_so_and_retried_with_patience() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name| dir.path().join(name);
    let (program, broken, tried) = (file("nats-server"), file("broken"), file("tried"));
    let script =
        format!("#!/bin/sh\n[ -e {broken:?} ] && touch {tried:?} && exit 9\nexec nats-server \"$@\"\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::start(&dir.path().join("data"), &["--nats-server", program.to_str().unwrap()]);
    let url = server.signaling().nats_url;
    let address = url.strip_prefix("nats://").unwrap();
    let health = || server.request("GET", "/readyz", None, None);

    fs::write(&broken, "").unwrap();
    kill(server.nats_pid().unwrap(), Signal::SIGKILL).unwrap();
    wait_until("unhealthy", || health().0 == 503);
    assert!(health().1["detail"].as_str().unwrap().contains("NATS"));
    wait_until("it was tried again", || tried.exists());
    // Meanwhile another program takes its port.
    let mut thief = None;
    wait_until("the port is free", || {
        thief = TcpListener::bind(address).ok();
        thief.is_some()
    });
    fs::remove_file(&broken).unwrap();
    let status = || server.request("GET", "/readyz", None, None).0;
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(status(), 503);
    drop(thief);
    wait_until("healthy again", || status() == 200);

    let (code, log) = server.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(log.contains("exit status: 9") && log.contains("address already in use"), "{log}");
    let restarts = log.matches("nats-server ended").count();
    assert!((2..12).contains(&restarts), "{restarts} times: {log}");
}

#[test]
fn nats_server_does_not_outlive_a_killed_latticed() {
    let (_dir, server) = start();
    assert!(server.nats_pid().is_some());
    server.end(Signal::SIGKILL);
}

#[test]
fn a_signal_ends_it_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (dir, server) = start();
        let nats = server.nats_pid().unwrap();
        let (code, log) = server.end(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(!Path::new(&format!("/proc/{nats}")).exists());
        assert!(!dir.path().join("latticed.json").exists());
        assert!(!dir.path().join("lattice.db-wal").exists(), "the database is closed");
    }
}

#[tokio::test]
async fn identity_lease_and_generation_survive_a_restart() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (dir, server) = start();
        let token = server.token("w", 2);
        let peer = Peer::enroll(&server, "a", &token).await;
        let before = peer.netmap().await.unwrap();
        let (grant, key) = (peer.grant.clone(), peer.key.clone());
        server.end(signal);

        let server = Server::start(dir.path(), &[]);
        let peer = Peer::resume(&server, grant.clone(), key).await;
        let after = peer.netmap().await.unwrap();
        assert_eq!((after.address, &after.peer), (grant.address, &grant.peer));
        assert!(after.generation >= before.generation);
        let other = Peer::enroll(&server, "b", &token).await;
        assert_ne!(other.grant.address, grant.address);
        assert!(peer.netmap().await.unwrap().generation > before.generation);
    }
}
