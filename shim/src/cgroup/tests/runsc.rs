//! That groups are where runsc puts them: the program itself says it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::super::{Cgroup, remove};
use super::group::{random, skipped};

struct Sandbox {
    dir: tempfile::TempDir,
    program: PathBuf,
    /// Ids and groups, the root container's first.
    containers: Vec<(String, Cgroup)>,
}

impl Sandbox {
    fn new() -> Option<Self> {
        let named = env::var_os("LATTICE_RUNSC").map(PathBuf::from);
        let found = || {
            env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join("runsc")).find(|path| path.is_file())
        };
        let Some(program) = named.or_else(found) else {
            skipped("runsc");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        Some(Self { dir, program, containers: Vec::new() })
    }

    fn runsc(&self) -> Command {
        let mut runsc = Command::new(&self.program);
        runsc.arg(format!("--root={}", self.dir.path().join("root").display())).arg("--network=none");
        runsc.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        runsc
    }

    /// Gives the host process of the sandbox. The program that it names is not looked for before a start.
    fn create(&mut self, cgroups_path: Option<&str>, annotations: &Value) -> String {
        let id = random();
        let bundle = self.dir.path().join(&id);
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": {"cwd": "/", "args": ["/none"], "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}]},
            "annotations": annotations,
        });
        if let Some(path) = cgroups_path {
            spec["linux"]["cgroupsPath"] = path.into();
        }
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        self.containers.push((id.clone(), Cgroup::of_spec(cgroups_path, &id)));
        let pid_file = bundle.join("pid");
        let mut create = self.runsc();
        let log = self.dir.path().join("log");
        create.arg("--log").arg(&log);
        create.arg("create").arg("--bundle").arg(&bundle).arg("--pid-file").arg(&pid_file).arg(&id);
        let status = create.status().unwrap();
        assert!(status.success(), "{cgroups_path:?}: {}", fs::read_to_string(log).unwrap_or_default());
        fs::read_to_string(pid_file).unwrap()
    }

    fn root_id(&self) -> &str {
        &self.containers[0].0
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Not by runsc: it would wait for somebody who reaps its processes, and nobody here does.
        let _ = lattice_runsc::kill_sandbox(&self.dir.path().join("root"));
        for (_, cgroup) in self.containers.iter().rev() {
            let _ = remove(&cgroup.directories());
        }
    }
}

fn processes(group: &Path) -> Vec<String> {
    fs::read_to_string(group.join("cgroup.procs")).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_sandbox_runs_in_the_groups_of_its_spec() {
    let name = random();
    for path in
        [None, Some(format!("/{name}")), Some(name.clone()), Some(format!("{name}.slice:lattice:{name}"))]
    {
        let Some(mut sandbox) = Sandbox::new() else { return };
        // Of version 2 these are all: there runsc refuses relative paths in the root group, and systemd's form takes systemd.
        let is_absolute = path.as_ref().is_none_or(|path| path.starts_with('/'));
        if !is_absolute && Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            return;
        }
        let pid = sandbox.create(path.as_deref(), &json!({}));
        let groups = sandbox.containers[0].1.directories();
        assert!(!groups.is_empty(), "{path:?}");
        for group in groups {
            assert!(processes(&group).contains(&pid), "{path:?}: {}", group.display());
        }
    }
}

#[test]
fn a_members_group_is_empty() {
    let Some(mut sandbox) = Sandbox::new() else { return };
    let role = |role: &str, id: &str| json!({"io.kubernetes.cri.container-type": role, "io.kubernetes.cri.sandbox-id": id});
    sandbox.create(None, &role("sandbox", ""));
    let root = sandbox.root_id().to_owned();
    sandbox.create(None, &role("container", &root));
    let members = sandbox.containers[1].1.directories();
    assert!(members.iter().all(|group| processes(group).is_empty()), "{members:?}");
    assert!(sandbox.containers[0].1.directories().iter().all(|group| !processes(group).is_empty()));
}
