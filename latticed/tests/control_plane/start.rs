//! Starting: what is made, and why it may fail.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::{
    peer::Peer,
    server::{Server, command, start, wait_until},
};

/// The exit code and the message of a latticed that does not start.
fn fails(data: &Path, more: &[&str]) -> (i32, String) {
    let output = command(data).args(more).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn secrets_are_private_and_not_printed() {
    let (dir, server) = start();
    let token = server.token("w", 1);
    Peer::enroll(&server, "a", &token).await;
    let admin = fs::read_to_string(dir.path().join("admin-token")).unwrap();

    let mut pending = vec![dir.path().to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o077, 0, "{}", path.display());
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    for name in
        ["admin-token", "operator.nk", "system-account.nk", "account.nk", "lattice.db", "lattice.db-wal"]
    {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    for pid in [server.pid(), server.nats_pid().unwrap()] {
        let argv = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!argv.contains(&admin));
    }
    let database = [fs::read(dir.path().join("lattice.db")), fs::read(dir.path().join("lattice.db-wal"))];
    let secret = token.split('-').nth(2).unwrap();
    for bytes in database {
        assert!(!String::from_utf8_lossy(&bytes.unwrap()).contains(secret), "tokens are kept as hashes");
    }

    let (_, log) = server.end(Signal::SIGTERM);
    assert!(log.contains("admin-token"), "its path is printed: {log}");
    assert!(!log.contains(&admin) && !log.contains(secret), "its value is not");
}

#[test]
fn the_second_latticed_of_a_directory_is_refused() {
    let (dir, _server) = start();
    let (code, message) = fails(dir.path(), &[]);
    assert_eq!(code, 6, "{message}");
    assert!(message.contains("another latticed"), "{message}");
}

#[test]
fn each_failure_has_its_code_and_names_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::write(open.join("somebody's"), "").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    let damaged = dir.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    fs::set_permissions(&damaged, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(damaged.join("lattice.db"), "no database ".repeat(1000)).unwrap();
    let read_only = Path::new("/sys/latticed");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();

    let cases: [(&Path, &[&str], i32, &str); 14] = [
        (&data, &["--pool", "10.42.0.1/16"], 2, "invalid address pool"),
        (&data, &["--nats-url", "nats://user:secret@127.0.0.1"], 2, "must not carry"),
        (&data, &["--log", "a=b=c"], 2, "invalid --log"),
        (&data, &["--nats-server", "/nonexistent/nats-server"], 3, "--nats-server"),
        (&data, &["--nats-server", file.to_str().unwrap()], 3, "--nats-server"),
        (&data, &["--nats-server", "/bin/false"], 7, "nats-server ended while starting"),
        (&open, &[], 5, "chmod 700"),
        (&file, &[], 5, "cannot"),
        (read_only, &[], 5, "cannot create /sys/latticed"),
        (&damaged, &[], 5, "lattice.db: error returned from database"),
        (&data, &["--database-url", "postgres://me:s3cret@127.0.0.1:1/x"], 5, "postgres://127.0.0.1:1/x: "),
        (&data, &["--database-url", "mysql://me:s3cret@127.0.0.1:1/x"], 5, "expected postgres://"),
        (&data, &["--database-url-file", "/nonexistent/url"], 5, "/nonexistent/url"),
        (&data, &["--nats-url", "nats://127.0.0.1:1"], 7, "nats-trust.conf"),
    ];
    for (data, more, expected, remedy) in cases {
        let (code, message) = fails(data, more);
        assert_eq!(code, expected, "{more:?}: {message}");
        assert!(message.contains(remedy) && !message.contains("s3cret"), "{more:?}: {message}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    for option in ["--listen", "--nats-listen"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
        command.arg("--data-dir").arg(dir.path());
        for each in ["--listen", "--nats-listen"] {
            command.args([each, if each == option { &address } else { "127.0.0.1:0" }]);
        }
        let output = command.output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{message}");
        assert!(message.contains(&address) && message.contains(option), "{message}");
    }
}

#[tokio::test]
async fn a_pool_that_leaves_leases_outside_is_refused() {
    let (dir, server) = start();
    Peer::enroll(&server, "a", &server.token("w", 1)).await;
    server.end(Signal::SIGTERM);
    let (code, message) = fails(dir.path(), &["--pool", "10.43.0.0/16"]);
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("10.42.0.2"), "{message}");
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn works_with_a_nats_server_that_it_does_not_supervise() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // The first try leaves behind what the server must include.
    assert_eq!(fails(&data, &["--nats-url", "nats://127.0.0.1:1"]).0, 7);
    let ports = dir.path().join("ports");
    fs::create_dir(&ports).unwrap();
    let config = data.join("external.conf");
    let text = format!("host: 127.0.0.1\nport: -1\nports_file_dir: {ports:?}\ninclude nats-trust.conf\n");
    fs::write(&config, text).unwrap();
    let nats = Command::new("nats-server").arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
    let _nats = Killed(nats);
    let mut url = None;
    wait_until("the external server listens", || {
        let file = fs::read_dir(&ports).unwrap().next();
        let text = file.and_then(|f| fs::read(f.unwrap().path()).ok()).unwrap_or_default();
        let ports: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        url = ports["nats"][0].as_str().map(str::to_owned);
        url.is_some()
    });

    let url = url.unwrap();
    let server = Server::start(&data, &["--nats-url", &url]);
    assert_eq!(server.nats_pid(), None);
    assert_eq!(server.signaling().nats_url, url);
    let peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    assert!(peer.netmap().await.is_ok());
    assert_eq!(server.end(Signal::SIGTERM).0, Some(0));
}
