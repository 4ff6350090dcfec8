//! A pod's place: a root file system of busybox, a network namespace, a directory for all.

use std::{
    fs,
    io::{PipeReader, Read as _},
    os::{fd::OwnedFd, unix::fs::symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lattice_overlay::netns::Netns;
use lattice_shim::{
    config::{Config, NetworkKind},
    io::ChildEnds,
    place::PodPlace,
    reaper::{Exit, Reaper},
    runsc::{Runsc, Streams},
};
use nix::unistd::Pid;
use oci_spec::runtime::Process;
use serde_json::{Value, json};
use tempfile::TempDir;

const APPLETS: &[&str] =
    &["cat", "cp", "echo", "false", "grep", "head", "ip", "kill", "sh", "sleep", "stty", "tr", "true", "tty"];
pub(crate) const POD: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(crate) struct Place {
    pub(crate) runsc: Runsc,
    pub(crate) reaper: Reaper,
    pub(crate) version: String,
    pub(crate) pod: PodPlace,
    pub(crate) id: String,
    netns: Netns,
    // Removed last.
    pub(crate) dir: TempDir,
}

/// Ours of the pipes.
pub(crate) struct Output {
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

impl Place {
    pub(crate) fn new(program: &Path, reaper: &Reaper) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("apt-get install busybox-static");
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        // As long as containerd's, and unique on the host: older releases make an abstract socket of it.
        let unique = dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.');
        let id = format!("{unique}{}", &POD[unique.len()..]);
        let pod = PodPlace::new(dir.path(), "k8s.io", &id).unwrap();
        pod.create().unwrap();
        let runsc = driver(program, pod.runsc_root(), reaper);
        let netns = Netns::create().expect("needs CAP_SYS_ADMIN: run the tests as root");
        let version = fs::canonicalize(program).unwrap().display().to_string();
        Self { runsc, reaper: reaper.clone(), version, pod, id, netns, dir }
    }

    /// The OCI spec of a container of this pod.
    pub(crate) fn spec(&self, id: &str, script: &str) -> Value {
        let kind = if id == self.id { "sandbox" } else { "container" };
        json!({
            "ociVersion": "1.0.2",
            "process": process(script),
            "root": {"path": self.dir.path().join("rootfs"), "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts"}
            ],
            "annotations": {
                "io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": self.id
            },
            "linux": {"namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "network", "path": self.netns.path()}
            ]}
        })
    }

    pub(crate) fn bundle(&self, id: &str, spec: &Value) -> PathBuf {
        let bundle = self.pod.create_bundle(id).unwrap();
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    pub(crate) async fn create(&self, id: &str, script: &str) -> (Pid, Output) {
        let bundle = self.bundle(id, &self.spec(id, script));
        let (ends, output) = pipes();
        (self.runsc.create(id, &bundle, Streams::Ends(ends), None).await.unwrap(), output)
    }

    pub(crate) async fn start(&self, id: &str) {
        self.runsc.start(id, &self.pod.bundle(id).unwrap()).await.unwrap();
    }

    pub(crate) async fn run(&self, id: &str, script: &str) -> (Pid, Output) {
        let made = self.create(id, script).await;
        self.start(id).await;
        made
    }

    /// The pod's first container, which sleeps.
    pub(crate) async fn pause(&self) -> Pid {
        self.run(&self.id, "exec sleep 600").await.0
    }

    /// The end of a root container.
    pub(crate) async fn end(&self, sandbox: Pid) -> Exit {
        self.reaper.adopt(sandbox).exit().await
    }

    /// Ends everything and looks that nothing is left.
    pub(crate) async fn clean_up(self, ids: &[&str]) {
        for id in ids.iter().chain([&self.id.as_str()]) {
            self.runsc.delete(id).await.unwrap();
        }
        assert_eq!(self.records(), Vec::<String>::new());
        eventually("every process of runsc's ends", || processes_with(&self.root_flag()).is_empty()).await;
    }

    /// runsc's files about containers.
    pub(crate) fn records(&self) -> Vec<String> {
        names(&self.pod.runsc_root()).into_iter().filter(|name| name.ends_with(".state")).collect()
    }

    pub(crate) fn root_flag(&self) -> String {
        format!("--root={}", self.pod.runsc_root().display())
    }
}

/// A failed test panics past its `clean_up`.
impl Drop for Place {
    fn drop(&mut self) {
        drop(lattice_runsc::kill_sandbox(&self.pod.runsc_root()));
    }
}

pub(crate) fn driver(program: &Path, root: PathBuf, reaper: &Reaper) -> Runsc {
    let config = Config { runsc: Some(program.to_owned()), ..Config::default() };
    Runsc::new(&config, NetworkKind::Plain, root, reaper.clone()).unwrap()
}

pub(crate) fn process(script: &str) -> Value {
    json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sh", "-c", script], "env": ["PATH=/bin"],
        "noNewPrivileges": true
    })
}

pub(crate) fn oci_process(script: &str) -> Process {
    serde_json::from_value(process(script)).unwrap()
}

pub(crate) fn pipes() -> (ChildEnds, Output) {
    let (stdout, to_stdout) = std::io::pipe().unwrap();
    let (stderr, to_stderr) = std::io::pipe().unwrap();
    let stdin = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    (ChildEnds { stdin, stdout: to_stdout.into(), stderr: to_stderr.into() }, Output { stdout, stderr })
}

impl Output {
    /// Both streams to their ends, which must come.
    pub(crate) async fn text(self) -> (String, String) {
        let read = |mut pipe: PipeReader| {
            tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                pipe.read_to_string(&mut text).map(|_| text)
            })
        };
        let (stdout, stderr) = tokio::join!(read(self.stdout), read(self.stderr));
        (stdout.unwrap().unwrap(), stderr.unwrap().unwrap())
    }
}

/// A line that must come.
pub(crate) async fn line(pipe: &PipeReader) -> String {
    let mut pipe = pipe.try_clone().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while pipe.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    });
    read.await.unwrap()
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Live processes of which an argument is exactly `argument`.
pub(crate) fn processes_with(argument: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let named = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|one| one == argument.as_bytes())
    };
    pids.filter(named).collect()
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

/// Every runsc that can be had; a missing one is named.
pub(crate) fn programs() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/usr/bin/runsc")];
    assert!(found[0].exists(), "apt-get install runsc");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runsc-backports");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/fetch-runsc");
    match Command::new(script).arg(&dir).output() {
        Ok(output) if output.status.success() => found.push(dir.join("runsc")),
        Ok(output) => {
            println!("SKIPPED: the newer runsc: {}", String::from_utf8_lossy(&output.stderr).trim())
        }
        Err(error) => println!("SKIPPED: the newer runsc: {error}"),
    }
    found
}
