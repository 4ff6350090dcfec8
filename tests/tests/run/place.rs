//! A host with an unprivileged user on it, and what he runs.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lattice_tests::{Host, Lab, Output, Process, process::patience, remains, tools};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(90);
pub(crate) const UID: u32 = 12345;

/// A host with a peer that serves HTTP on 8080 and 9090, and an unprivileged user on it.
pub(crate) struct Place {
    pub(crate) lab: Lab,
    pub(crate) tool: Ipv4Addr,
    pub(crate) host: Host,
    /// That of `tool`.
    pub(crate) peer: Host,
    pub(crate) user: TempDir,
    /// Where the command is started, below the user's directory.
    pub(crate) cwd: PathBuf,
    /// What root does before that, in the run's mount namespace.
    pub(crate) before: String,
    _running: Vec<Process>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let mut lab = Lab::start();
        let (peer, host) = (lab.host(), lab.host());
        let (node, tool) = lab.up(&peer, "tool");
        let running = vec![node, lab.serve_http(&peer, 8080), lab.serve_http(&peer, 9090)];
        let user = tempfile::Builder::new().prefix("lattice-run-").tempdir_in("/run").expect("a directory");
        fs::set_permissions(user.path(), fs::Permissions::from_mode(0o711)).expect("a directory of the user");
        for dir in ["home", "etc", "run"] {
            let dir = user.path().join(dir);
            fs::create_dir(&dir).expect("a directory of the user");
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("a directory of the user");
            chown(&dir, Some(UID), Some(UID)).expect("root");
        }
        Self { lab, tool, host, peer, user, cwd: "home".into(), before: String::new(), _running: running }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.user.path().join(name)
    }

    /// `lattice sandbox run` as the user. With `tun`, he may make TUN devices.
    pub(crate) fn run(&self, tun: bool, flags: &[&str], command: &[&str]) -> Command {
        let token = self.path("home/token");
        if !self.path("etc/sandbox-credentials.json").exists() {
            fs::write(&token, self.lab.admin(&["token", "create", "--workspace", "demo"]))
                .expect("the token's file");
            fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("a directory of the user");
            chown(&token, Some(UID), Some(UID)).expect("root");
        }
        let node = self.path("tun");
        let node = node.display();
        let prepare = if tun {
            format!("[ -e {node} ] || mknod -m 666 {node} c 10 200; mount --bind {node} /dev/net/tun; ")
        } else {
            String::new()
        };
        let script = format!(
            "{prepare}{}cd {}; exec setpriv --reuid {UID} --regid {UID} --clear-groups --bounding-set=-all --inh-caps=-all --pdeathsig KILL -- \"$@\"",
            self.before,
            self.user.path().join(&self.cwd).display()
        );
        let mut lattice = lattice_tests::process::command(&self.host.netns.path(), Path::new("unshare"));
        lattice.args(["-m", "sh", "-ec", &script, "run"]).arg(tools::built("lattice"));
        lattice.args(["sandbox", "run", "--name", "agent", "--listen-port", "0"]);
        lattice
            .args(["--server-url", self.lab.server_url(), "--audit-file"])
            .arg(self.path("home/audit.jsonl"));
        if token.exists() {
            lattice.arg("--token-file").arg(&token);
        }
        lattice.args(flags).arg("--").args(command);
        lattice
            .env("HOME", self.path("home"))
            .env("LATTICE_CONFIG_DIR", self.path("etc"))
            .env("LATTICE_STATE_DIR", self.path("run"))
            .env("LATTICE_ADMIN_TOKEN", "not-for-the-command")
            .env_remove("LATTICE_TOKEN");
        for proxy in ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            lattice.env_remove(proxy);
        }
        lattice
    }

    pub(crate) fn finish(&self, command: Command) -> Output {
        Process::spawn(command, "run", self.lab.dir.path()).finish(LIMIT)
    }

    pub(crate) fn allowed(&self) -> String {
        format!("tcp:{}/32:8080", self.tool)
    }

    /// Nothing is left of the user's sandbox.
    pub(crate) fn assert_clean(&self) {
        let needle = self.user.path().display().to_string();
        let deadline = Instant::now() + patience(Duration::from_secs(10));
        loop {
            let mut left = remains::processes(&needle);
            let sandboxes = fs::read_dir(self.path("run/sandboxes")).into_iter().flatten().flatten();
            left.extend(sandboxes.map(|entry| entry.path().display().to_string()));
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("home/audit.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }
}
