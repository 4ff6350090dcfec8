//! The clock of latticed's host is set while it runs.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio},
};

use lattice_wire::message::RefusalCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    peer::{Peer, refused},
    server::{Server, command, wait_until},
};

/// The clocks of one latticed, by a library that is loaded before libc. NATS has the right time.
pub struct Clock {
    dir: TempDir,
    file: File,
}

impl Clock {
    /// `None` where there is no C compiler.
    pub fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control_plane/clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(dir.path().join("clock.so"))
            .arg(source)
            .stderr(Stdio::inherit())
            .status();
        if !built.is_ok_and(|status| status.success()) {
            println!("SKIPPED: a clock that is set: no C compiler (cc)");
            return None;
        }
        fs::write(dir.path().join("clocks"), [0; 40]).unwrap();
        let file = File::options().write(true).open(dir.path().join("clocks")).unwrap();
        Some(Self { dir, file })
    }

    /// A latticed with these clocks.
    pub fn start(&self, more: &[&str]) -> Server {
        let data = self.dir.path().join("data");
        let mut command = command(&data);
        command.env("LD_PRELOAD", self.dir.path().join("clock.so"));
        command.env("TEST_CLOCK", self.dir.path().join("clocks"));
        Server::run(command.args(more), &data)
    }

    /// Sets the time of day so many seconds ahead of what it is.
    fn set(&self, ahead: i64) {
        self.write(0, ahead);
    }

    /// Has so many seconds pass since the start, beside those that do.
    fn pass(&self, seconds: i64) {
        self.write(1, seconds);
    }

    /// Stops the clock by which intervals are measured, or lets it go.
    pub fn freeze(&self, frozen: bool) {
        self.write(2, i64::from(frozen));
    }

    fn write(&self, field: u64, value: i64) {
        self.file.write_all_at(&value.to_ne_bytes(), 8 * field).unwrap();
    }
}

fn events(server: &Server, kind: &str) -> usize {
    let events = server.admin("GET", "/api/v1/events", None).1;
    events["items"].as_array().unwrap().iter().filter(|event| event["kind"] == kind).count()
}

fn is_online(server: &Server, peer: &Peer) -> Value {
    server.admin("GET", &format!("/api/v1/peers/{}", peer.id()), None).1["online"].clone()
}

#[tokio::test]
async fn what_is_over_stays_over_when_the_clock_is_set_back_and_time_goes_on() {
    let Some(clock) = Clock::new() else { return };
    let server = clock.start(&[]);
    let lasting = server.token("w", 3);
    let made = |body: Value| server.admin("POST", "/api/v1/tokens", Some(body)).1["token"].clone();
    let brief = made(json!({"workspace": "w", "ttlSeconds": 120}));
    let for_a_while = made(json!({"workspace": "w", "peerTtl": "10m", "ttlSeconds": 86_400}));
    let (brief, for_a_while) = (brief.as_str().unwrap(), for_a_while.as_str().unwrap());
    let stays = Peer::enroll(&server, "stays", &lasting).await;
    let ends = Peer::enroll(&server, "ends", for_a_while).await;
    assert_eq!(stays.netmap().await.unwrap().peers.len(), 1);

    for ahead in [3600, 0, -3600] {
        clock.set(ahead);
        assert_eq!(refused(&server, "late", brief).await, RefusalCode::TokenExpired, "{ahead}");
        assert_eq!(ends.netmap().await, Err(RefusalCode::PeerUnknown), "{ahead}");
        assert_eq!(ends.heartbeat(&[]).await, Err(RefusalCode::PeerUnknown), "{ahead}");
        assert!(stays.netmap().await.unwrap().peers.is_empty(), "{ahead}");
    }
    let newcomer = Peer::enroll(&server, "newcomer", made(json!({"workspace": "w"})).as_str().unwrap()).await;
    assert_eq!(newcomer.netmap().await.unwrap().peers.len(), 1);

    // What is done each minute is done: who is over is removed.
    clock.pass(61);
    wait_until("the reconciler removes who is over", || events(&server, "peer.expired") == 1);
    // And who is silent goes offline, at half the pace.
    clock.pass(61 + 200);
    wait_until("the silent go offline", || is_online(&server, &stays) == false);
    // But not all at once when the clock is set forward.
    stays.heartbeat(&["192.0.2.1:1"]).await.unwrap();
    newcomer.heartbeat(&["192.0.2.2:1"]).await.unwrap();
    clock.set(7200);
    clock.pass(61 + 200 + 6);
    for _ in 0..20 {
        assert_eq!((is_online(&server, &stays), is_online(&server, &newcomer)), (json!(true), json!(true)));
    }
    let (code, log) = server.end(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(log.contains("the clock of this host was set back") && log.contains("has caught up"), "{log}");
}
