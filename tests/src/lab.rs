//! A control plane and hosts in namespaces of their own.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use lattice_overlay::Netns;
use nix::mount::{MntFlags, umount2};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;

use crate::{
    process::{Output, Process, command, patience},
    tools,
};

const START: Duration = Duration::from_secs(60);
const COMMAND: Duration = Duration::from_secs(60);

/// One host of a lab.
pub struct Host {
    /// Its namespace.
    pub netns: Netns,
    /// Its underlay address.
    pub address: Ipv4Addr,
    /// Its own `/etc/lattice` and `/run/lattice`.
    pub dir: PathBuf,
}

impl Host {
    /// Runs `ip` with `args` in its namespace.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, args: &str) {
        ip(&self.netns, args);
    }
}

/// A hub with a control plane, and hosts around it.
pub struct Lab {
    /// Everything that the lab writes.
    pub dir: TempDir,
    hub: Netns,
    hosts: u8,
    latticed: Option<Process>,
    /// More options of latticed.
    pub(crate) options: Vec<String>,
}

impl Lab {
    /// A hub with a bridge, without a control plane.
    ///
    /// # Panics
    /// Without root.
    pub fn bare() -> Self {
        // Mounts of the lab's sandboxes go with this thread, even when the test is killed.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: run as root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        let dir = tempfile::Builder::new().prefix("lattice-lab-").tempdir().expect("a temporary directory");
        let hub = Netns::create().expect("a network namespace: run as root");
        ip(&hub, "link set lo up");
        ip(&hub, "link add br0 type bridge");
        ip(&hub, "addr add 192.168.50.1/24 dev br0");
        ip(&hub, "link set br0 up");
        Self { dir, hub, hosts: 1, latticed: None, options: Vec::new() }
    }

    /// A hub with a running control plane and a workspace named `demo`.
    pub fn start() -> Self {
        let mut lab = Self::bare();
        lab.start_latticed();
        lab.admin(&["workspace", "create", "demo"]);
        lab
    }

    /// Starts latticed, or starts it again.
    pub fn start_latticed(&mut self) {
        let mut latticed = command(&self.hub.path(), &tools::built("latticed"));
        latticed.arg("--data-dir").arg(self.data_dir()).args(&self.options);
        let mut process = Process::spawn(latticed, "latticed", self.dir.path());
        wait_until(START, "latticed to be healthy", || {
            let mut curl = command(&self.hub.path(), Path::new("curl"));
            let ok =
                curl.args(["-sf", "-m", "2", "-o", "/dev/null", "http://127.0.0.1:8080/readyz"]).status();
            // What it logs is no sign: it goes on after errors of NATS, and says so.
            assert!(!process.has_ended(), "latticed failed: {}", process.output().1);
            ok.is_ok_and(|status| status.success())
        });
        process.name = "latticed".into();
        self.latticed = Some(process);
        if !self.login_file().exists() {
            let one_time = self.data_dir().join("admin-token").display().to_string();
            self.admin(&["login", "--token-file", &one_time]);
        }
    }

    /// Where the administrator of the lab keeps its login.
    fn login_file(&self) -> PathBuf {
        self.dir.path().join("login.json")
    }

    /// The running latticed.
    ///
    /// # Panics
    /// When none runs.
    pub fn latticed(&self) -> &Process {
        self.latticed.as_ref().expect("latticed runs")
    }

    /// Takes the control plane away; it dies when the result is dropped.
    pub fn take_latticed(&mut self) -> Option<Process> {
        self.latticed.take()
    }

    /// Runs `ip` with `args` where the control plane is.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, args: &str) {
        ip(&self.hub, args);
    }

    /// The namespace through which all hosts reach each other.
    pub fn hub(&self) -> &Netns {
        &self.hub
    }

    /// latticed's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("latticed")
    }

    /// The control plane as the hosts see it.
    pub fn server_url(&self) -> &'static str {
        "http://192.168.50.1:8080"
    }

    /// Adds a host.
    pub fn host(&mut self) -> Host {
        let number = self.next_number();
        let netns = new_netns();
        let address = self.plug(&netns, "eth0", number);
        ip(&netns, "link set lo up");
        Host { netns, address, dir: self.host_dir(number) }
    }

    /// A number that no host of the lab has yet, at least 2.
    pub(crate) fn next_number(&mut self) -> u8 {
        self.hosts += 1;
        self.hosts
    }

    /// Connects a namespace to the hub by a link of that name; returns its address there.
    pub(crate) fn plug(&self, netns: &Netns, link: &str, number: u8) -> Ipv4Addr {
        let address = Ipv4Addr::new(192, 168, 50, number);
        let inside = netns.path();
        ip(
            &self.hub,
            &format!("link add port{number} type veth peer name {link} netns {}", inside.display()),
        );
        ip(&self.hub, &format!("link set port{number} master br0 up"));
        ip(netns, &format!("addr add {address}/24 dev {link}"));
        ip(netns, &format!("link set {link} up"));
        address
    }

    /// A new directory for a host's own files.
    pub(crate) fn host_dir(&self, number: u8) -> PathBuf {
        let dir = self.dir.path().join(format!("host{number}"));
        fs::create_dir(&dir).expect("a directory");
        dir
    }

    /// Runs an administration command beside latticed and returns its stdout.
    ///
    /// # Panics
    /// When it fails.
    pub fn admin(&self, args: &[&str]) -> String {
        let mut lattice = command(&self.hub.path(), &tools::built("lattice"));
        lattice.args(args).env("LATTICE_LOGIN_FILE", self.login_file());
        for other in ["LATTICE_ADMIN_TOKEN", "LATTICE_ADMIN_TOKEN_FILE"] {
            lattice.env_remove(other);
        }
        let out = Process::spawn(lattice, "admin", self.dir.path()).finish(COMMAND);
        assert_eq!(out.code, 0, "lattice {args:?}: {}", out.stderr);
        out.stdout.trim().to_owned()
    }

    /// A new one-time token of the workspace `demo`, in a file.
    pub fn token_file(&self, host: &Host) -> PathBuf {
        let path = host.dir.join("token");
        fs::write(&path, self.admin(&["token", "create", "--workspace", "demo"])).expect("the token's file");
        path
    }

    /// `lattice` on a host, with the host's own directories.
    pub fn lattice(&self, host: &Host) -> Command {
        let mut lattice = command(&host.netns.path(), &tools::built("lattice"));
        lattice
            .env("LATTICE_CONFIG_DIR", host.dir.join("etc"))
            .env("LATTICE_STATE_DIR", host.dir.join("run"));
        lattice.env("LATTICE_SERVER_URL", self.server_url()).env_remove("LATTICE_TOKEN");
        lattice
    }

    /// Runs `lattice` with `args` on a host to its end.
    pub fn run(&self, host: &Host, args: &[&str]) -> Output {
        let mut lattice = self.lattice(host);
        lattice.args(args);
        Process::spawn(lattice, "lattice", self.dir.path()).finish(COMMAND)
    }

    /// Runs any program on a host to its end.
    pub fn on(&self, host: &Host, program: &str, args: &[&str]) -> Output {
        let mut any = command(&host.netns.path(), Path::new(program));
        any.args(args);
        Process::spawn(any, program, self.dir.path()).finish(COMMAND)
    }

    /// Joins a host with `lattice up`; returns the running process and the host's overlay address.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn up(&self, host: &Host, name: &str) -> (Process, Ipv4Addr) {
        self.up_with(host, name, &[])
    }

    /// Like [`Self::up`], with more arguments.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn up_with(&self, host: &Host, name: &str, more: &[&str]) -> (Process, Ipv4Addr) {
        let mut lattice = self.lattice(host);
        lattice.args(["up", "--name", name]).args(more);
        if !host.dir.join("etc/node-credentials.json").exists() {
            lattice.arg("--token-file").arg(self.token_file(host));
        }
        let mut process = Process::spawn(lattice, name, self.dir.path());
        process.wait_for("overlay IP=", START);
        let address = overlay_ip(&process.output().1);
        (process, address)
    }

    /// Serves HTTP with `python3 -m http.server` on every address of a host.
    pub fn serve_http(&self, host: &Host, port: u16) -> Process {
        let root = host.dir.join("www");
        let _ = fs::create_dir(&root);
        fs::write(root.join("index.html"), "hello from the tool\n").expect("the page");
        let mut server = command(&host.netns.path(), Path::new("python3"));
        server.args(["-m", "http.server", "--bind", "::", &port.to_string(), "--directory"]).arg(&root);
        let process = Process::spawn(server, "http", self.dir.path());
        wait_until(START, "the HTTP service", || {
            host.netns
                .run(|| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
                .unwrap_or(false)
        });
        process
    }
}

/// Before the directory goes: ends what writes to it, and removes what killed sandboxes left: mounts in it, and cgroups.
impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.latticed.take());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| Path::new(point).starts_with(self.dir.path())) {
            let _ = umount2(point, MntFlags::MNT_DETACH);
        }
        for group in groups(self.dir.path()) {
            let _ = fs::remove_dir(group);
        }
    }
}

/// The cgroups that killed sandboxes have noted below `dir`; a group with processes stays.
fn groups(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(groups(&entry.path())),
            Ok(kind) if kind.is_symlink() && entry.file_name() == "cgroup" => {
                found.extend(fs::read_link(entry.path()).ok());
            }
            _ => {}
        }
    }
    found
}

/// The address behind `overlay IP=`.
///
/// # Panics
/// When there is none.
pub fn overlay_ip(text: &str) -> Ipv4Addr {
    let (_, rest) = text.split_once("overlay IP=").expect("a ready line");
    rest.split_whitespace().next().and_then(|ip| ip.parse().ok()).expect("an address")
}

/// Waits until `done`.
///
/// # Panics
/// When `limit` passes first.
pub fn wait_until(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + patience(limit);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "waited {limit:?} for {what} in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A namespace whose links use their link-local addresses at once. One that is still being probed for answers nobody, and asks for
/// no neighbour, for up to two seconds.
pub(crate) fn new_netns() -> Netns {
    let netns = Netns::create().expect("a network namespace: run as root");
    let at_once = netns.run(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"));
    at_once.expect("the namespace").expect("its duplicate address detection off");
    netns
}

pub(crate) fn ip(netns: &Netns, args: &str) {
    let mut ip = command(&netns.path(), Path::new("ip"));
    let out = ip
        .args(args.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("iproute2");
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}
