//! Who was removed, or whose time is over, is out of NATS: at once, and after a restart of whatever.

use std::{fs, path::Path, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use lattice_wire::{PeerId, message::RefusalCode, subject};
use nix::sys::signal::{Signal, kill};
use nkeys::KeyPair;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::{
    hostile::refuses,
    peer::{Peer, connect, pushed},
    server::{Server, start, wait_until},
};

fn remove(server: &Server, peer: &Peer) {
    assert_eq!(server.admin("DELETE", &format!("/api/v1/peers/{}", peer.id()), None).0, 204);
}

/// Whether NATS refuses the JWT of `peer`.
async fn is_out(server: &Server, peer: &Peer) -> bool {
    let inbox = subject::inbox(peer.id());
    refuses(connect(&server.signaling(), &peer.grant.nats_jwt, &peer.key, &inbox).await.err())
}

#[tokio::test]
async fn a_removed_peer_is_cut_off_and_the_others_are_not() {
    let (_dir, server) = start();
    let token = server.token("w", 4);
    let stays = Peer::enroll(&server, "stays", &token).await;
    let mut pushes = stays.pushes().await;
    for name in ["one", "two"] {
        let mut removed = Peer::enroll(&server, name, &token).await;
        remove(&server, &removed);
        removed.link.lost().await;
        assert!(is_out(&server, &removed).await);
    }
    // The connection of who stays is the same one, and works.
    let newcomer = Peer::enroll(&server, "newcomer", &token).await;
    let map =
        pushed(&mut pushes, "the newcomer", |map| map.peers.iter().any(|p| p.id == *newcomer.id())).await;
    assert_eq!(map.peers.len(), 1, "who was removed is in no map either");
}

#[tokio::test]
async fn a_revocation_outlives_restarts_of_nats_and_of_latticed() {
    let (dir, server) = start();
    let token = server.token("w", 2);
    let stays = Peer::enroll(&server, "stays", &token).await;
    let mut removed = Peer::enroll(&server, "removed", &token).await;
    remove(&server, &removed);
    removed.link.lost().await;

    let before = server.nats_pid().unwrap();
    kill(before, Signal::SIGKILL).unwrap();
    wait_until("another nats-server", || server.nats_pid().is_some_and(|pid| pid != before));
    wait_until("healthy again", || server.request("GET", "/readyz", None, None).0 == 200);
    assert!(is_out(&server, &removed).await, "the configuration that nats-server started with has it");
    stays.answered().await;

    server.end(Signal::SIGTERM);
    let server = Server::start(dir.path(), &[]);
    assert!(is_out(&server, &removed).await);
    assert!(Peer::resume(&server, stays.grant.clone(), stays.key.clone()).await.netmap().await.is_ok());
}

#[tokio::test]
async fn a_removal_by_another_latticed_meanwhile_is_not_undone() {
    let (dir, server) = start();
    let token = server.token("w", 2);
    let mine = Peer::enroll(&server, "mine", &token).await;
    let mut others = Peer::enroll(&server, "others", &token).await;
    // NATS does not answer, so latticed is held between what it has read and what it knows to be in force.
    let config = || fs::read_to_string(dir.path().join("nats-server.conf")).unwrap();
    let (before, nats) = (config(), server.nats_pid().unwrap());
    kill(nats, Signal::SIGSTOP).unwrap();
    remove(&server, &mine);
    wait_until("NATS is told", || config() != before);
    // As another latticed does it.
    let database = sqlx::SqliteConnection::connect(dir.path().join("lattice.db").to_str().unwrap());
    let update = "UPDATE peers SET removed_at = unixepoch(), changed = 0 WHERE name = 'others'";
    sqlx::query(update).execute(&mut database.await.unwrap()).await.unwrap();
    kill(nats, Signal::SIGCONT).unwrap();
    others.link.lost().await;
    assert!(is_out(&server, &mine).await && is_out(&server, &others).await);
}

#[tokio::test]
async fn a_disk_that_takes_no_file_keeps_nobody_connected() {
    let (dir, server) = start();
    let mut removed = Peer::enroll(&server, "removed", &server.token("w", 1)).await;
    // In the place where the configuration is written.
    let obstacle = dir.path().join(".nats-server.conf.new");
    fs::create_dir(&obstacle).unwrap();
    let config = || fs::read_to_string(dir.path().join("nats-server.conf")).unwrap();
    let before = config();
    remove(&server, &removed);
    removed.link.lost().await;
    assert!(is_out(&server, &removed).await);
    assert_eq!(config(), before);
    fs::remove_dir(&obstacle).unwrap();
    wait_until("it is written after all", || config() != before);
}

pub fn claims(jwt: &str) -> Value {
    let payload = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap()
}

/// `jwt` with other claims, signed by latticed's own key.
pub fn signed(data: &Path, jwt: &str, claims: &str) -> String {
    let account = fs::read_to_string(data.join("account.nk")).unwrap();
    let account = KeyPair::from_seed(account.trim()).unwrap();
    let header = jwt.split('.').next().unwrap();
    let body = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.as_bytes()));
    format!("{body}.{}", BASE64URL_NOPAD.encode(&account.sign(body.as_bytes()).unwrap()))
}

#[tokio::test]
async fn jwts_end() {
    let (dir, server) = start();
    let peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    let granted = claims(&peer.grant.nats_jwt);
    assert_eq!(granted["exp"], granted["iat"].as_i64().unwrap() + 30 * 24 * 3600);

    let earlier = |jwt: &str, by: i64| {
        let mut claims = claims(jwt);
        for time in ["iat", "exp"] {
            claims[time] = json!(claims[time].as_i64().unwrap() - by);
        }
        signed(dir.path(), jwt, &claims.to_string())
    };
    // What a newcomer was given lives for five minutes: the same, but of an hour ago.
    let at = server.signaling();
    let user = &at.bootstrap;
    let key = Arc::new(KeyPair::from_seed(&user.seed).unwrap());
    assert!(connect(&at, &earlier(&user.jwt, 0), &key, &user.inbox).await.is_ok(), "signed as latticed does");
    assert!(refuses(connect(&at, &earlier(&user.jwt, 3600), &key, &user.inbox).await.err()));
    let expired = earlier(&peer.grant.nats_jwt, 31 * 24 * 3600);
    assert!(refuses(connect(&at, &expired, &peer.key, &subject::inbox(peer.id())).await.err()));
}

/// Until NATS has been told of a removal, latticed itself refuses.
#[tokio::test]
async fn who_is_let_in_by_nats_but_is_no_peer_is_told_nothing() {
    let (dir, server) = start();
    let mut peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    let nobody = PeerId::from_random([7; 10]);
    let text = claims(&peer.grant.nats_jwt).to_string().replace(peer.id().as_str(), nobody.as_str());
    peer.grant.nats_jwt = signed(dir.path(), &peer.grant.nats_jwt, &text);
    peer.grant.peer = nobody;
    let nobody = Peer::resume(&server, peer.grant.clone(), peer.key.clone()).await;
    assert_eq!(nobody.netmap().await, Err(RefusalCode::PeerUnknown));
    assert_eq!(nobody.heartbeat(&[]).await, Err(RefusalCode::PeerUnknown));
    assert_eq!(nobody.leave().await, Err(RefusalCode::PeerUnknown));
}
