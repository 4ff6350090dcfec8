//! A containerd with an image, in namespaces of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{Inside, Options, Pod, Release, Remains, Runtime, cgroups, cri::Cri, image, settings};
use crate::{
    lab::{Lab, wait_until},
    process::{Output, Process},
    tools,
};

/// How long a daemon, or one of its commands, may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The namespace of containerd in which CRI works.
pub const NAMESPACE: &str = "k8s.io";

/// A running containerd.
pub struct Daemon {
    /// The runtime that its pods use unless they say otherwise.
    pub runtime: Runtime,
    /// Which containerd it is.
    pub release: Release,
    /// Where it runs.
    pub inside: Inside,
    containerd: Option<Process>,
    /// The parent of the cgroups of all pods and containers.
    pub cgroup: String,
    /// Comes last: the processes end before their files go.
    pub dir: TempDir,
}

impl Daemon {
    /// The usual containerd, for `runtime`.
    ///
    /// # Panics
    /// Without it, root or busybox.
    pub fn start(runtime: Runtime) -> Self {
        let release = Release::usual(runtime);
        Self::of(release.unwrap_or_else(|| panic!("no containerd for {}", runtime.shim())), runtime)
    }

    /// That containerd, for `runtime`.
    ///
    /// # Panics
    /// Without root, containerd or busybox.
    pub fn of(release: Release, runtime: Runtime) -> Self {
        cgroups::sweep();
        let dir =
            tempfile::Builder::new().prefix(&cgroups::prefix()).tempdir().expect("a temporary directory");
        let inside = Inside::new(dir.path());
        let network = dir.path().join("net.d");
        settings::network(&network);
        let config = settings::containerd(dir.path(), &network);
        fs::write(dir.path().join("containerd.toml"), config).expect("the configuration");
        // gVisor's `start` looks nowhere else to learn whether a pod has one shim.
        if let Some(toml) = Runtime::Runsc.toml(dir.path()) {
            fs::create_dir_all(inside.path("/run/containerd/runsc")).expect("a directory");
            fs::copy(toml, inside.path("/run/containerd/runsc/config.toml"))
                .expect("the shim's configuration");
        }
        let name = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut daemon = Self { runtime, release, inside, containerd: None, cgroup: format!("/{name}"), dir };
        daemon.start_containerd();
        daemon.load();
        daemon
    }

    /// Starts containerd, or starts it again.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn start_containerd(&mut self) {
        let mut containerd = self.inside.command(self.release.dir.join("containerd"));
        containerd.arg("--config").arg(self.dir.path().join("containerd.toml")).env("PATH", self.search());
        containerd.env("TMPDIR", self.directory("tmp"));
        let process = Process::spawn(containerd, "containerd", self.dir.path());
        let cri = self.cri();
        wait_until(LIMIT, "containerd to serve CRI", || {
            let log = process.output().1;
            assert!(!log.contains("containerd: "), "containerd failed: {log}");
            cri.version().is_ok()
        });
        self.containerd = Some(process);
    }

    /// Kills containerd, and nothing else.
    pub fn kill_containerd(&mut self) {
        self.containerd = None;
    }

    /// containerd's process id outside.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        let pid = self.containerd.as_ref().expect("containerd runs").pid();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("nsenter's child");
        children.trim().parse().expect("one child")
    }

    /// What containerd has logged since it was started last.
    pub fn log(&self) -> String {
        self.containerd.as_ref().map_or(String::new(), |process| process.output().1)
    }

    /// Where shims, and the programs they run, are looked for: shims of the release before the system's.
    fn search(&self) -> String {
        let dirs = [self.release.dir.clone(), tools::fetched("gvisor-shim"), tools::built_dir()]
            .map(|dir| dir.display().to_string());
        format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", dirs.join(":"))
    }

    /// The kubelet's side.
    pub fn cri(&self) -> Cri {
        Cri::new(&self.socket())
    }

    /// The socket of the daemon.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    /// `ctr` with `args`, in a namespace of containerd.
    pub fn ctr(&self, namespace: &str, args: &[&str]) -> Command {
        let mut ctr = self.inside.command(self.release.dir.join("ctr"));
        ctr.arg("--address").arg(self.socket()).args(["--namespace", namespace]).args(args);
        ctr.env("PATH", self.search());
        ctr
    }

    /// Runs `ctr` in CRI's namespace to its end.
    pub fn run_ctr(&self, args: &[&str]) -> Output {
        Process::spawn(self.ctr(NAMESPACE, args), "ctr", self.dir.path()).finish(LIMIT)
    }

    fn load(&self) {
        let archive = image::write(self.dir.path());
        let out = self.run_ctr(&["image", "import", &archive.display().to_string()]);
        assert_eq!(out.code, 0, "image import: {}{}", out.stdout, out.stderr);
        fs::remove_file(archive).expect("the archive");
        let cri = self.cri();
        wait_until(LIMIT, "CRI to know the image", || cri.has_image(image::NAME));
    }

    /// What there is now that a runtime could leave behind. What a first pod makes for all others is there already.
    ///
    /// # Panics
    /// When no pod can be run.
    pub fn remains(&self) -> Remains {
        fs::create_dir_all(self.inside.path("/run/containerd/fifo")).expect("ctr's directory");
        let pod = Pod::run(self);
        pod.start("first", &Options::default()).shell("true");
        pod.remove();
        wait_until(LIMIT, "the first pod's shim to end", || {
            self.inside.processes().iter().all(|task| task.parent == 0)
        });
        Remains::of(self)
    }

    /// Waits until what is there is what was there.
    ///
    /// # Panics
    /// When something stays.
    pub fn assert_nothing_since(&self, before: &Remains) {
        Remains::wait(self, before);
    }

    /// Makes its namespace a host of `lab`, and gives its pods a network there: `lattice` is more of that section of `shim.toml`.
    /// For [`Runtime::Lattice`].
    ///
    /// # Panics
    /// When the namespace cannot be connected.
    pub fn join(&self, lab: &mut Lab, lattice: &str) {
        let number = lab.next_number();
        lab.plug(&self.inside.netns(), "underlay", number);
        let text = format!(
            "runsc = \"{}\"\n[lattice]\nserver = \"{}\"\ncredentials_dir = \"{}\"\naudit_dir = \"{}\"\n{lattice}\n",
            Runtime::runsc().display(),
            lab.server_url(),
            self.directory("credentials").display(),
            self.directory("audit").display(),
        );
        fs::write(self.dir.path().join("lattice.toml"), text).expect("shim.toml");
    }

    /// Limits what all containers use together, in bytes: what a kubelet does to the cgroup of a pod.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn limit_memory(&self, bytes: i64) {
        let (v1, v2) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (top, file) = if v1.is_dir() { (v1, "memory.limit_in_bytes") } else { (v2, "memory.max") };
        let group = top.join(self.cgroup.trim_start_matches('/'));
        fs::create_dir_all(&group).expect("a cgroup");
        fs::write(group.join(file), bytes.to_string()).expect("its limit");
    }

    /// A temporary directory that the containers may mount.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }
}

/// The processes end with their namespaces; what is below our cgroup is removed here.
impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the last of containerd's log, newest first:\n{}", tail.join("\n"));
        }
        self.inside.end();
        cgroups::remove(self.cgroup.trim_start_matches('/'), LIMIT);
    }
}
