//! What a run could leave on the machine, to be compared before and after.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// How long a killed process may take to go.
const SETTLE: Duration = Duration::from_secs(3);

/// A picture of the machine.
pub(crate) struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// The machine as it is.
    pub(crate) fn now() -> Self {
        let mut seen = BTreeSet::new();
        for pid in names(Path::new("/proc")).filter(|name| name.bytes().all(|c| c.is_ascii_digit())) {
            let Ok(command) = fs::read_to_string(format!("/proc/{pid}/comm")) else { continue };
            let command = command.trim();
            if ["lattice", "latticed", "nats-server", "runsc", "exe"]
                .iter()
                .any(|ours| command.starts_with(ours))
                && command != "lattice-demo"
            {
                seen.insert(format!("process {pid} {command}"));
            }
        }
        seen.extend(names(Path::new("/sys/class/net")).map(|link| format!("link {link}")));
        seen.extend(names(Path::new("/run/netns")).map(|name| format!("netns {name}")));
        seen.extend(
            fs::read_to_string("/proc/self/mounts")
                .unwrap_or_default()
                .lines()
                .map(|line| format!("mount {line}")),
        );
        for root in
            ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"]
        {
            seen.extend(
                names(Path::new(root))
                    .filter(|name| name.contains("lattice"))
                    .map(|name| format!("cgroup {root}/{name}")),
            );
        }
        if let Ok(out) = Command::new("bpftool").args(["prog", "list"]).output() {
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            seen.extend(
                text.lines().filter(|line| line.contains("lattice")).map(|line| format!("bpf {line}")),
            );
        }
        Self(seen)
    }

    /// What is there and was not there before, once the processes that are still dying are gone.
    pub(crate) fn settle(&self) -> Vec<String> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let left: Vec<String> = Self::now().0.difference(&self.0).cloned().collect();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}
