//! A directory in which one test's shims live.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use containerd_shim_protos::{
    protobuf::{CodedOutputStream, Message as _, well_known_types::any::Any},
    shim_async::{Client, TaskClient},
};
use nix::{sys::signal, unistd::Pid};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const NAMESPACE: &str = "k8s.io";

pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::Builder::new().prefix("shim-").tempdir().unwrap() };
        let config = format!("network = \"plain\"\nstate_dir = {:?}\n", place.state());
        fs::write(place.config(), config).unwrap();
        place
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("shim.toml")
    }

    /// A bundle, with the annotation that names a pod unless it is one itself.
    pub(crate) fn bundle(&self, id: &str, pod: &str) -> PathBuf {
        let bundle = self.dir.path().join(id);
        fs::create_dir(&bundle).unwrap();
        let role = if id == pod { "sandbox" } else { "container" };
        let annotations = serde_json::json!({"io.kubernetes.cri.sandbox-id": pod, "io.kubernetes.cri.container-type": role});
        let spec = serde_json::json!({"ociVersion": "1.1.0", "annotations": annotations});
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    /// The options by which containerd names our `shim.toml`.
    pub(crate) fn options(&self) -> Vec<u8> {
        options(2, self.config().to_str().unwrap().as_bytes())
    }

    pub(crate) fn run(&self, bundle: &Path, flags: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_containerd-shim-lattice-v1"))
            .args(flags)
            .current_dir(bundle)
            .env("LATTICE_SHIM_SOCKET_DIR", self.sockets())
            .env("TTRPC_ADDRESS", self.dir.path().join("nobody.ttrpc"))
            .env("SECRET_OF_CONTAINERD", "x")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It need not read what it does not want.
        let _ = child.stdin.take().unwrap().write_all(input);
        let (pid, done) = (Pid::from_raw(child.id().cast_signed()), std::sync::Arc::new(()));
        let watch = std::sync::Arc::downgrade(&done);
        let guard = thread::spawn(move || {
            let deadline = Instant::now() + LIMIT;
            while watch.strong_count() > 0 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
            if watch.strong_count() > 0 {
                let _ = signal::kill(pid, signal::Signal::SIGKILL);
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(done);
        guard.join().unwrap();
        output
    }

    pub(crate) fn start(&self, id: &str, input: &[u8]) -> Output {
        let flags = [
            "-namespace",
            NAMESPACE,
            "-address",
            "/run/c.sock",
            "-publish-binary",
            "/bin/true",
            "-id",
            id,
            "start",
        ];
        self.run(&self.dir.path().join(id), &flags, input)
    }

    pub(crate) fn delete(&self, id: &str) -> Output {
        let bundle = self.dir.path().join(id);
        let flags = [
            "-namespace",
            NAMESPACE,
            "-address",
            "/run/c.sock",
            "-id",
            id,
            "-bundle",
            bundle.to_str().unwrap(),
            "delete",
        ];
        self.run(&bundle, &flags, b"")
    }

    /// Starts it, and gives the address of a containerd of before 2.3.
    pub(crate) fn address(&self, id: &str) -> String {
        let output = self.start(id, &self.options());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stderr, b"", "containerd would read it as part of the address");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every server that was started here.
    pub(crate) fn servers(&self) -> Vec<Pid> {
        let mark = self.sockets().into_os_string().into_string().unwrap();
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
        pids.filter(|pid| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let cmdline = String::from_utf8_lossy(&cmdline);
            cmdline.contains("-socket") && cmdline.contains(&mark)
        })
        .collect()
    }

    pub(crate) fn server(&self) -> Pid {
        let servers = self.servers();
        assert_eq!(servers.len(), 1, "{servers:?}");
        servers[0]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.servers() {
            let _ = signal::kill(pid, signal::Signal::SIGKILL);
        }
    }
}

/// `runtimeoptions.v1.Options` with one field, in an `Any` without a type name, as `ctr` gives it.
pub(crate) fn options(field: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut out = CodedOutputStream::vec(&mut bytes);
    out.write_bytes(field, value).unwrap();
    out.flush().unwrap();
    drop(out);
    Any { value: bytes, ..Any::default() }.write_to_bytes().unwrap()
}

/// Does something with a client of the shim at `address`.
pub(crate) fn ask<T>(address: &str, question: impl AsyncFnOnce(TaskClient) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = TaskClient::new(Client::connect(address).await.unwrap());
        tokio::time::timeout(LIMIT, question(client)).await.unwrap()
    })
}

pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so after {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
