//! A database belongs to the keys and to the pool that it was begun with.

use std::{fs, path::Path};

use nix::sys::signal::Signal;

use crate::{
    peer::Peer,
    server::{Server, command, start},
    start::fails,
};

fn run(data: &Path, args: &[&str]) -> (i32, String) {
    let output = command(data).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn other_keys_are_refused_until_they_are_adopted() {
    let (dir, server) = start();
    let peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    let (grant, key) = (peer.grant.clone(), peer.key.clone());
    // As for a second latticed, but with nothing of the first one's directory but the database.
    let (code, message) = run(dir.path(), &["adopt"]);
    assert_eq!(code, 6, "while it runs: {message}");
    server.end(Signal::SIGTERM);
    let lost = dir.path().join("account.nk");
    let key_file = fs::read_to_string(&lost).unwrap();
    fs::remove_file(&lost).unwrap();
    let (code, message) = fails(dir.path(), &[]);
    assert_eq!(code, 8, "{message}");
    assert!(message.contains("another account.nk: copy"), "{message}");
    // What was made anew gives way to the right one.
    fs::write(&lost, key_file).unwrap();
    let server = Server::start(dir.path(), &[]);
    assert!(Peer::resume(&server, grant, key).await.netmap().await.is_ok());
    server.end(Signal::SIGTERM);

    fs::remove_file(&lost).unwrap();
    let (code, message) = run(dir.path(), &["adopt"]);
    assert_eq!(code, 0, "{message}");
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.peers().len(), 1);
}

#[test]
fn another_pool_is_refused_until_it_is_adopted() {
    let (dir, server) = start();
    server.end(Signal::SIGTERM);
    let bigger = ["--pool", "10.40.0.0/14"];
    let (code, message) = fails(dir.path(), &bigger);
    assert_eq!(code, 8, "{message}");
    assert!(message.contains("give --pool 10.42.0.0/16") && message.contains("adopt --pool"), "{message}");
    let (code, message) = run(dir.path(), &["adopt", "--pool", "10.40.0.0/14"]);
    assert_eq!(code, 0, "{message}");
    let server = Server::start(dir.path(), &bigger);
    drop(server);
    assert_eq!(fails(dir.path(), &[]).0, 8);
}
