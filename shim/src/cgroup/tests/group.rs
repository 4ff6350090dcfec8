//! Groups and processes of a test, which end with it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use super::super::{Cgroup, Groups, files, host::Host, remove};

pub(super) fn skipped(what: &str) {
    println!("SKIPPED: {what}: this host has none");
}

pub(super) struct Group {
    pub(super) path: PathBuf,
    pub(super) cgroup: Cgroup,
}

impl Group {
    /// In all hierarchies of version 1, or in version 2 with `controllers`. None, and it says so, where one of them is missing.
    pub(super) fn new(controllers: &[&str]) -> Option<Self> {
        let path = Path::new("/").join(random());
        let cgroup = Cgroup::of_spec(path.to_str(), "x");
        let has = |controller: &str| match &cgroup.0 {
            Groups::V1(groups) => groups.contains_key(controller),
            // Time is counted without.
            Groups::V2(group) => controller == "cpuacct" || enable(group.parent().unwrap(), controller),
        };
        if let Some(missing) = controllers.iter().find(|controller| !has(controller)) {
            skipped(&format!("the {missing} cgroup controller"));
            return None;
        }
        Some(Self { path, cgroup }.make())
    }

    /// In the version 2 hierarchy, also where it stands beside version 1.
    pub(super) fn unified() -> Option<Self> {
        let mounts = crate::mounts::table::read().unwrap();
        let Some(root) = mounts.into_iter().rev().find(|entry| entry.kind == "cgroup2") else {
            skipped("a mounted cgroup of version 2");
            return None;
        };
        let name = random();
        Some(
            Self { path: Path::new("/").join(&name), cgroup: Cgroup(Groups::V2(root.point.join(name))) }
                .make(),
        )
    }

    pub(super) fn below(&self, name: &str) -> Cgroup {
        let path = self.path.join(name);
        let cgroup = Cgroup(Host::read().groups(path.to_str().unwrap()));
        all(&cgroup).iter().for_each(|group| make(group));
        cgroup
    }

    pub(super) fn directory(&self, controller: &str) -> PathBuf {
        match &self.cgroup.0 {
            Groups::V1(groups) => groups[controller].clone(),
            Groups::V2(group) => group.clone(),
        }
    }

    pub(super) fn has(&self, file: &str) -> bool {
        all(&self.cgroup).iter().any(|group| group.join(file).exists())
    }

    /// 0 for a file that is not there.
    pub(super) fn number(&self, controller: &str, file: &str) -> u64 {
        files::number(&self.directory(controller).join(file)).unwrap().unwrap_or(0)
    }

    pub(super) fn put(&self, child: &Child) {
        for group in all(&self.cgroup) {
            fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
    }

    fn make(self) -> Self {
        all(&self.cgroup).iter().for_each(|group| make(group));
        self
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let left = remove(&self.cgroup.directories());
        if !std::thread::panicking() {
            left.unwrap();
        }
    }
}

/// A shell that waits for [`Child::go`], and is killed at the end.
pub(super) struct Child {
    process: process::Child,
    output: BufReader<process::ChildStdout>,
}

impl Child {
    pub(super) fn ready(script: &str) -> Self {
        let mut process = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn go(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub(super) fn wait_for_line(&mut self, line: &str) {
        let mut text = String::new();
        self.output.read_line(&mut text).unwrap();
        assert_eq!(text.trim_end(), line);
    }

    /// What ended it.
    pub(super) fn signal(&mut self) -> Option<i32> {
        self.process.wait().unwrap().signal()
    }

    pub(super) fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// Version 1 lets no process in before it has been told on which processors it may run.
fn make(group: &Path) {
    fs::create_dir(group).unwrap();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(aboves) = fs::read(group.parent().unwrap().join(file)) {
            fs::write(group.join(file), aboves).unwrap();
        }
    }
}

pub(super) fn random() -> String {
    let name = tempfile::Builder::new().prefix("lattice-test-").tempdir().unwrap();
    name.path().file_name().unwrap().to_str().unwrap().to_owned()
}

fn all(cgroup: &Cgroup) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = match &cgroup.0 {
        Groups::V1(groups) => groups.values().cloned().collect(),
        Groups::V2(group) => vec![group.clone()],
    };
    all.sort();
    all.dedup();
    all
}

fn enable(parent: &Path, controller: &str) -> bool {
    let lists = |file: &str| {
        let text = fs::read_to_string(parent.join(file)).unwrap_or_default();
        text.split_whitespace().any(|name| name == controller)
    };
    lists("cgroup.subtree_control")
        || (lists("cgroup.controllers")
            && fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")).is_ok())
}
