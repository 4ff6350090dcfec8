//! Pod mode as tests use it: users without a name or a privilege on a lab's host, and their sandboxes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use lattice_overlay::Netns;
use serde_json::Value;

use crate::{Host, Lab, Process, lab::wait_until, tools};

const START: Duration = Duration::from_secs(30);
const RECORD: Duration = Duration::from_secs(20);

/// A user who is in no `/etc/passwd` and has no capability, with directories of his own.
pub struct User {
    /// User and group id.
    pub id: u32,
    /// What is his on the host: `home`, `state`, `run`.
    pub dir: PathBuf,
}

impl User {
    /// Makes a user's directories, in a folder of that name.
    ///
    /// # Panics
    /// Without root.
    pub fn new(lab: &Lab, host: &Host, id: u32, folder: &str) -> Self {
        let passable = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        passable(lab.dir.path(), 0o711).expect("the lab's directory");
        let dir = host.dir.join(folder);
        for path in [dir.clone(), dir.join("home"), dir.join("state"), dir.join("run")] {
            fs::create_dir(&path).expect("a directory");
            chown(&path, Some(id), Some(id)).expect("another owner");
            passable(&path, 0o700).expect("its mode");
        }
        Self { id, dir }
    }

    /// A file that is his alone.
    ///
    /// # Panics
    /// Without root.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, content).expect("a file");
        chown(&path, Some(self.id), Some(self.id)).expect("another owner");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        path
    }

    /// `program` run by him in a network namespace, killed when the calling thread ends. It has no capability, can get none, and of the
    /// environment only what is his.
    pub fn command(&self, netns: &Netns, program: &Path) -> Command {
        self.prefixed(netns, &[], program)
    }

    /// Like [`Self::command`], after `script` has run as root in a mount namespace of the command's own.
    pub fn command_after(&self, netns: &Netns, script: &str, program: &Path) -> Command {
        let script = format!("{script}\nexec \"$@\"");
        self.prefixed(netns, &["unshare", "--mount", "sh", "-e", "-c", &script, "sh"], program)
    }

    fn prefixed(&self, netns: &Netns, before: &[&str], program: &Path) -> Command {
        let id = self.id.to_string();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns.path().display())).arg("--").args(before);
        command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--bounding-set=-all"]);
        command.args(["--inh-caps=-all", "--no-new-privs", "--pdeathsig", "KILL", "--"]).arg(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir.join("home")).env("XDG_STATE_HOME", self.dir.join("state"));
        command.env("XDG_RUNTIME_DIR", self.dir.join("run")).stdin(Stdio::null());
        command
    }

    /// The arguments of `lattice sandbox start --mode pod`, with a token where he has no credentials yet.
    pub fn start(&self, lab: &Lab, host: &Host, name: &str, more: &[&str]) -> Vec<String> {
        let mut args: Vec<String> =
            ["sandbox", "start", "--mode", "pod", "--name", name].map(Into::into).into();
        let path = |file: &str| self.dir.join(file).display().to_string();
        args.extend(["--server-url".into(), lab.server_url().into()]);
        args.extend(["--audit-file".into(), path("audit.jsonl"), "--ready-file".into(), path("ready.json")]);
        if !self.enrolled() {
            let token = fs::read_to_string(lab.token_file(host)).expect("a token");
            args.extend(["--token-file".into(), self.file("token", &token).display().to_string()]);
        }
        args.extend(more.iter().map(|&arg| arg.into()));
        args
    }

    /// Whether he has credentials.
    pub fn enrolled(&self) -> bool {
        self.dir.join("state/lattice/sandbox-credentials.json").exists()
    }

    /// Starts a sandbox and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn pod(&self, lab: &Lab, host: &Host, name: &str, more: &[&str]) -> Pod {
        let mut command = self.command(&host.netns, &tools::built("lattice"));
        command.args(self.start(lab, host, name, more));
        Pod::ready(Process::spawn(command, name, lab.dir.path()), self, name)
    }
}

/// A running sandbox of pod mode.
pub struct Pod {
    /// Its process.
    pub process: Process,
    /// Its overlay address.
    pub address: Ipv4Addr,
    /// Where its proxy listens.
    pub proxy: Option<SocketAddr>,
    /// What it wrote when it was ready.
    pub ready: Value,
    audit: PathBuf,
}

impl Pod {
    /// The sandbox that `process` is, as soon as it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn ready(mut process: Process, user: &User, name: &str) -> Self {
        process.wait_for("overlay IP=", START);
        let file = user.dir.join("ready.json");
        wait_until(START, "the ready file", || file.exists());
        let ready: Value =
            serde_json::from_str(&fs::read_to_string(&file).expect("the ready file")).expect("JSON");
        assert_eq!(
            (&ready["name"], ready["pid"].as_u64()),
            (&name.into(), Some(process.pid().into())),
            "{ready}"
        );
        let address = ready["address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        assert_eq!(address, crate::lab::overlay_ip(&said(&process)), "the ready line says the same");
        let proxy = ready["proxy"].as_str().map(|text| text.parse().expect("the proxy's address"));
        Self { process, address, proxy, ready, audit: user.dir.join("audit.jsonl") }
    }

    /// Where its proxy listens.
    ///
    /// # Panics
    /// When it has none.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy.unwrap_or_else(|| panic!("{} has a proxy", self.process.name))
    }

    /// Its flow records so far.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.audit).expect("the records");
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    /// Waits for a flow record.
    ///
    /// # Panics
    /// When there is none.
    pub fn record(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = std::time::Instant::now() + crate::process::patience(RECORD);
        loop {
            let records = self.records();
            if let Some(found) = records.iter().find(|record| wanted(record)) {
                return found.clone();
            }
            assert!(std::time::Instant::now() < deadline, "no record of {what}: {records:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as an operator does; it must end by itself and say that all is well.
    ///
    /// # Panics
    /// When it does not.
    pub fn end(self) {
        self.process.signal(nix::sys::signal::Signal::SIGTERM);
        let ready = self.audit.with_file_name("ready.json");
        let out = self.process.finish(START);
        assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
        assert!(!ready.exists(), "a sandbox that has ended is not ready");
    }
}

/// All that a process has said.
pub fn said(process: &Process) -> String {
    let (out, err) = process.output();
    out + &err
}
