//! A place for agents: a root file system of busybox alone, a network namespace, a state directory.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use lattice_bootstrap::Ready;
use lattice_overlay::netns::Netns;
use lattice_runsc::{Agent, AgentSpec, AgentStdio, Runsc, Writable, sweep};
use tempfile::TempDir;

const APPLETS: &[&str] = &[
    "cat", "chmod", "dd", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "kill", "ls",
    "mkdir", "mknod", "mount", "ping", "pwd", "readlink", "rm", "sh", "sleep", "touch", "true", "tr", "wc",
    "yes",
];

pub(crate) struct Place {
    dir: TempDir,
    netns: Netns,
}

pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let netns = Netns::create().expect("needs CAP_SYS_ADMIN: run the tests as root");
        let place = Self { dir, netns };
        let bin = place.rootfs().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(place.rootfs().join("etc")).unwrap();
        fs::write(
            place.rootfs().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n",
        )
        .unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("apt-get install busybox-static");
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        place
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(crate) fn ready(&self) -> Ready {
        Ready::for_tests(self.netns.path())
    }

    /// An agent that runs `script`.
    pub(crate) fn spec(&self, script: &str) -> AgentSpec {
        AgentSpec {
            name: "agent".into(),
            rootfs: self.rootfs(),
            binary: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![],
            cwd: "/".into(),
            uid: 0,
            gid: 0,
            memory_bytes: None,
            cpus: None,
            pids: None,
            rootfs_writable: Writable::Overlay,
            resolv_conf: None,
            hosts: None,
            terminal: false,
        }
    }

    /// Runs `spec` to its end.
    pub(crate) fn run(&self, runsc: &Runsc, spec: &AgentSpec) -> Output {
        let (mut agent, mut out, mut err) = self.start(runsc, spec);
        let errors = thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).map(|_| text)
        });
        let mut stdout = String::new();
        out.read_to_string(&mut stdout).unwrap();
        let stderr = errors.join().unwrap().unwrap();
        let code = agent.wait().unwrap();
        Output { code, stdout, stderr }
    }

    /// What `script` prints; it must succeed.
    pub(crate) fn sh(&self, runsc: &Runsc, script: &str) -> String {
        let output = self.run(runsc, &self.spec(script));
        assert_eq!(output.code, 0, "{script}: {}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Starts `spec` and gives its output streams.
    pub(crate) fn start(
        &self,
        runsc: &Runsc,
        spec: &AgentSpec,
    ) -> (Agent, impl Read + Send + use<>, impl Read + Send + use<>) {
        let (out, to_out) = std::io::pipe().unwrap();
        let (err, to_err) = std::io::pipe().unwrap();
        let stdio = AgentStdio::new(Stdio::null(), to_out, to_err);
        (runsc.start_with_stdio(&self.ready(), spec, &self.state(), stdio).unwrap(), out, err)
    }

    /// Starts `spec` and waits until it has printed a line.
    pub(crate) fn start_and_await_line(
        &self,
        runsc: &Runsc,
        spec: &AgentSpec,
    ) -> (Agent, String, impl Read + Send + use<>) {
        let (agent, mut out, _err) = self.start(runsc, spec);
        let line = read_line(&mut out);
        (agent, line, out)
    }

    /// Names of what is left in the state directory.
    pub(crate) fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state().join("runsc")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

pub(crate) fn read_line(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Every runsc that can be had; a missing one is named on standard error, past the test's capture.
pub(crate) fn each_runsc(test: impl Fn(&Runsc)) {
    static FOUND: OnceLock<Vec<Runsc>> = OnceLock::new();
    for runsc in FOUND.get_or_init(find_all) {
        eprintln!("with runsc {} on {}", runsc.version, runsc.platform);
        test(runsc);
    }
}

fn find_all() -> Vec<Runsc> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runsc-answers");
    let mut found = vec![Runsc::find_with_cache(None, None, &cache).expect("apt-get install runsc")];
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runsc-backports");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/fetch-runsc");
    match Command::new(script).arg(&dir).output() {
        Ok(output) if output.status.success() => {
            found.push(Runsc::find_with_cache(Some(&dir.join("runsc")), None, &cache).unwrap());
        }
        Ok(output) => skipped(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped(&error.to_string()),
    }
    found
}

fn skipped(reason: &str) {
    drop(writeln!(std::io::stderr(), "SKIPPED for the newer runsc: {}", reason.trim()));
}

/// `pid` and every descendant of it.
pub(crate) fn tree(pid: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([pid]);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            found.extend(tree(child.parse().unwrap()));
        }
    }
    found
}

/// A field of `/proc/<pid>/status`; `None` when the process is gone or a zombie.
pub(crate) fn status_field(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let get = |name: &str| {
        let line = status.lines().find(|line| line.split(':').next() == Some(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    if get("State")?.starts_with('Z') { None } else { get(field) }
}

/// A failed test may leave sandboxes behind whose supervisor it has killed.
impl Drop for Place {
    fn drop(&mut self) {
        drop(sweep(&self.state()));
    }
}

/// Waits for something that must come.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never came: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
