//! A disk without room: whatever is to be written says so, nothing is half written, and all goes on when there is room again.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use lattice_wire::message::RefusalCode;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    backup::backup,
    peer::{Peer, refused},
    server::Server,
    start::fails,
};

/// A small disk that only this thread and its children see.
struct Disk {
    dir: TempDir,
}

impl Disk {
    /// `None` without the right to mount.
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            println!("SKIPPED: a full disk: cannot mount one: {error}");
            return None;
        }
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let options = format!("size={size},mode=700");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Some(Self { dir })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.at("filler")).unwrap();
        let error = loop {
            if let Err(error) = file.write_all(&[1; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.at("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.dir.path(), MntFlags::MNT_DETACH);
    }
}

fn admin_token(data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
    command.arg("--data-dir").arg(data).arg("admin-token").output().unwrap()
}

fn post(server: &Server, path: &str, body: Value) -> (u16, String) {
    let (status, answer) = server.admin("POST", path, Some(body));
    (status, answer["detail"].as_str().unwrap_or_default().to_owned())
}

fn policy() -> Value {
    let rule = json!({"direction": "egress", "action": "allow", "rule": "tcp:192.0.2.1:443"});
    json!({"workspace": "w", "policy": {"name": "p", "rules": [rule]}})
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn nothing_is_half_written_and_all_goes_on_when_there_is_room() {
    let Some(disk) = Disk::new("16m") else { return };
    let data = disk.at("data");
    let server = Server::start(&data, &[]);
    let token = server.token("w", 5);
    let peer = Peer::enroll(&server, "a", &token).await;
    let path = format!("/api/v1/peers/{}", peer.id());
    let spent = server.token("w", 1);
    Peer::enroll(&server, "guest", &spent).await.leave().await.unwrap();
    let one_time = fs::read(data.join("admin-token")).unwrap();
    let kept = names(&data);

    disk.fill();
    // SQLite has some room within its own files.
    let is_full = (0..2_000).any(|_| {
        let body = json!({"workspace": "w", "labels": {"a": "x".repeat(60)}});
        let (status, detail) = post(&server, "/api/v1/tokens", body);
        assert!(status == 201 || status == 503 && detail.contains("make room"), "{status} {detail}");
        status == 503
    });
    assert!(is_full);
    let before = server.admin("GET", "/api/v1/tokens", None).1;
    for (path, body) in [
        ("/api/v1/tokens", json!({"workspace": "w"})),
        ("/api/v1/policies", policy()),
        ("/api/v1/workspaces", json!({"name": "x"})),
        ("/api/v1/agent-enroll", json!({"workspaceId": "w", "agentName": "b"})),
        ("/api/v1/admin-tokens", json!({"name": "x", "role": "viewer"})),
    ] {
        let (status, detail) = post(&server, path, body);
        assert!(status == 503 && detail.contains("make room"), "{path}: {status} {detail}");
    }
    let (status, answer) =
        server.admin("PUT", &format!("{path}/labels"), Some(json!({"labels": {"a": "b"}})));
    assert_eq!(status, 503, "{answer}");
    assert_eq!(server.admin("DELETE", &path, None).0, 503);
    assert_eq!(refused(&server, "b", &token).await, RefusalCode::Unavailable);
    // Somebody shows a token that has done its work: that is refused, and an event that cannot be kept is in the log at least.
    assert_eq!(refused(&server, "b", &spent).await, RefusalCode::TokenUsed);
    assert_eq!(peer.heartbeat(&["192.0.2.9:9"]).await, Err(RefusalCode::Unavailable));
    // What only reads goes on.
    assert_eq!(peer.netmap().await.unwrap().peers.len(), 1);
    assert_eq!(server.admin("GET", &path, None).0, 200);
    assert_eq!(
        server.admin("GET", "/api/v1/tokens", None).1,
        before,
        "no use of any is gone, and no row half there"
    );

    let (code, message) = fails(&disk.at("another"), &[]);
    assert!(code == 5 && message.contains("No space left"), "keys: {code} {message}");
    let output = admin_token(&data);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(5) && message.contains("No space left"), "admin token: {output:?}");
    assert_eq!(fs::read(data.join("admin-token")).unwrap(), one_time);
    let output = backup(&data, &disk.at("copy"), &[]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(!disk.at("copy").exists());
    assert_eq!(names(&data), kept, "nothing is left of what failed");

    disk.make_room();
    let second = Peer::enroll(&server, "b", &token).await;
    assert_eq!(peer.heartbeat(&["192.0.2.9:9"]).await.map(drop), Ok(()));
    assert!(second.netmap().await.unwrap().peers.iter().any(|other| other.id == *peer.id()));
    for (path, body) in [
        ("/api/v1/policies", policy()),
        ("/api/v1/workspaces", json!({"name": "x"})),
        ("/api/v1/admin-tokens", json!({"name": "x", "role": "viewer"})),
    ] {
        let (status, detail) = post(&server, path, body);
        assert_eq!((status, detail.as_str()), (201, ""), "{path}");
    }
    assert_eq!(server.peers().len(), 3);
    assert_eq!(admin_token(&data).status.code(), Some(0));
    assert_eq!(backup(&data, &disk.at("copy"), &[]).status.code(), Some(0));
    drop(Server::start(&disk.at("another"), &[]));
    let (code, log) = server.end(Signal::SIGTERM);
    assert!(code == Some(0) && log.contains("event could not be written down"), "{log}");
}
