//! A pod's containers under runsc alone: what no shim can do without.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use lattice_tests::containerd::{Runtime, image};
use serde_json::json;
use tempfile::TempDir;

/// Bundles of a pause container and of one in its sandbox.
pub(crate) struct Bare {
    dir: TempDir,
}

impl Bare {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("lattice-bare-").tempdir().expect("a temporary directory");
        image::root(&dir.path().join("root"));
        for (id, kind) in [("pause", "sandbox"), ("bench", "container")] {
            let spec = json!({
                "ociVersion": "1.0.2",
                "annotations": {
                    "io.kubernetes.cri.container-type": kind,
                    "io.kubernetes.cri.sandbox-id": "pause",
                },
                "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/sleep", "inf"], "cwd": "/", "env": ["PATH=/bin"] },
                "root": { "path": dir.path().join("root"), "readonly": true },
                "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
                "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }] }
            });
            let bundle = dir.path().join(id);
            fs::create_dir(&bundle).expect("a bundle");
            fs::write(bundle.join("config.json"), spec.to_string()).expect("the spec");
        }
        Self { dir }
    }

    /// From the sandbox's creation until nothing is left of it, in ms.
    pub(crate) fn life(&self) -> f64 {
        let begun = Instant::now();
        for id in ["pause", "bench"] {
            self.runsc(&["create", "--bundle", &self.bundle(id).display().to_string(), id]);
            self.runsc(&["start", id]);
        }
        for id in ["bench", "pause"] {
            self.runsc(&["kill", id, "KILL"]);
            self.runsc(&["delete", "--force", id]);
        }
        begun.elapsed().as_secs_f64() * 1e3
    }

    fn bundle(&self, id: &str) -> PathBuf {
        self.dir.path().join(id)
    }

    fn runsc(&self, words: &[&str]) {
        let mut runsc = Command::new(Runtime::runsc());
        runsc.arg("--root").arg(self.dir.path().join("state")).args(["--network=host", "--ignore-cgroups"]);
        runsc.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = runsc.status().expect("runsc");
        assert!(status.success(), "runsc {words:?}: {status}");
    }
}
