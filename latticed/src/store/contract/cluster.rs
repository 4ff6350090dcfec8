//! A Postgres of the tests' own: in a temporary directory, on a unix socket, gone with the test process however that ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::unistd::{Uid, User, geteuid};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// Starts the server, says so, and waits until nobody holds the other end of its input. Postgres refuses to run as root,
/// so `$as` may be a command that becomes somebody else.
const GUARD: &str = r#"
cd "$dir"
$as "$bin/initdb" -D data -U lattice -A trust -E UTF8 --locale=C --no-sync >log 2>&1 &&
$as "$bin/pg_ctl" -D data -l server.log -w -o "$options" start >>log 2>&1 && echo ready
read -r _
$as "$bin/pg_ctl" -D data -m immediate stop >>log 2>&1
cd / && rm -rf "$dir"
"#;

/// A running Postgres.
pub(super) struct Cluster {
    dir: PathBuf,
    bin: PathBuf,
    guard: Child,
    databases: AtomicU32,
}

/// The one for all tests of this process. `None`, said once, where there is no Postgres.
pub(super) fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(Cluster::start).as_ref()
}

impl Cluster {
    /// `None` where there is no Postgres.
    pub(super) fn start() -> Option<Self> {
        let Some(bin) = programs() else {
            eprintln!(
                "SKIPPED: the store on Postgres: no /usr/lib/postgresql/*/bin/initdb: apt-get install postgresql"
            );
            return None;
        };
        // The guard removes it: this process may be killed.
        let dir = tempfile::Builder::new().prefix("lattice-pg-").tempdir().unwrap().keep();
        if let Some(user) = user() {
            chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let mut guard = Command::new("sh")
            .args(["-c", GUARD])
            .envs([("dir", dir.as_path()), ("bin", &bin)])
            .envs([("as", become_user().join(" ")), ("options", options(&dir))])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let cluster = Self { dir, bin, guard, databases: AtomicU32::new(0) };
        assert_eq!(line.trim(), "ready", "{:?}", fs::read_to_string(cluster.dir.join("log")));
        Some(cluster)
    }

    /// The URL of a new database.
    pub(super) async fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=lattice", self.dir.display())
    }

    /// Ends the server as a crash would.
    pub(super) fn crash(&self) {
        self.control(&["-m", "immediate", "stop"]);
    }

    /// Starts it again.
    pub(super) fn restart(&self) {
        self.control(&["-l", "server.log", "-w", "-o", &options(&self.dir), "start"]);
    }

    fn control(&self, args: &[&str]) {
        let mut words = become_user();
        let program = self.bin.join("pg_ctl").display().to_string();
        words.extend([program, "-D".into(), "data".into()]);
        words.extend(args.iter().map(|arg| (*arg).to_owned()));
        let status = Command::new(&words[0])
            .args(&words[1..])
            .current_dir(&self.dir)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{words:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn options(dir: &Path) -> String {
    format!(
        "-c listen_addresses='' -c unix_socket_directories={} -c fsync=off -c max_connections=300 -c shared_buffers=16MB",
        dir.display()
    )
}

/// Where the newest installed version is.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut versions: Vec<_> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
    versions.retain(|bin| Path::exists(&bin.join("initdb")));
    versions.sort();
    versions.pop()
}

/// Who Postgres runs as, when we are root.
fn user() -> Option<User> {
    if geteuid() != Uid::from_raw(0) {
        return None;
    }
    User::from_name("nobody").unwrap()
}

fn become_user() -> Vec<String> {
    user().map_or(vec![], |user| {
        vec![
            "setpriv".into(),
            format!("--reuid={}", user.uid),
            format!("--regid={}", user.gid),
            "--clear-groups".into(),
        ]
    })
}
