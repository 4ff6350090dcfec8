//! What a runtime could leave behind, compared before and after.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Daemon, cgroups, daemon::NAMESPACE};
use crate::process::patience;

/// How many descriptors containerd may hold more than before: connections that it keeps, and those in the moment of the count.
const DESCRIPTORS: usize = 8;

/// Everything of a daemon that is there at one moment.
#[derive(Debug, Clone)]
pub struct Remains {
    things: BTreeSet<String>,
    descriptors: usize,
}

impl Remains {
    pub(super) fn of(daemon: &Daemon) -> Self {
        let inside = &daemon.inside;
        let mut things = BTreeSet::new();
        things.extend(inside.processes().into_iter().filter(|task| task.parent != 0).map(|task| {
            format!("process {} of {} {} {} {}", task.pid, task.parent, task.state, task.name, task.line)
        }));
        let mounts = fs::read_to_string(inside.path("/proc/1/mounts")).unwrap_or_default();
        things.extend(mounts.lines().map(|line| format!("mount {line}")));
        let links = inside.run("ip", &["-o", "link"], super::daemon::LIMIT).stdout;
        things.extend(links.lines().filter_map(|line| Some(format!("link {}", line.split(": ").nth(1)?))));
        let work = format!("{}/root/io.containerd.runtime.v2.task/{NAMESPACE}", daemon.dir.path().display());
        for dir in ["/run", &work, &daemon.directory("tmp").display().to_string()] {
            files(&inside.path(dir), &mut things);
        }
        things.extend(
            cgroups::of(daemon.cgroup.trim_start_matches('/'))
                .into_iter()
                .map(|path| format!("cgroup {}", path.display())),
        );
        let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, Iterator::count);
        Self { things, descriptors }
    }

    pub(super) fn wait(daemon: &Daemon, before: &Self) {
        let deadline = Instant::now() + patience(Duration::from_secs(30));
        loop {
            let now = Self::of(daemon);
            let left: Vec<&String> = now.things.difference(&before.things).collect();
            let more = now.descriptors.saturating_sub(before.descriptors);
            if left.is_empty() && more <= DESCRIPTORS {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left behind by {}: {left:#?} and {more} descriptors of containerd",
                daemon.runtime.shim()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Every file below `dir`, and every empty directory: containerd makes the others once and keeps them.
fn files(dir: &Path, found: &mut BTreeSet<String>) {
    let entries: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    if entries.is_empty() && dir.is_dir() {
        found.insert(format!("directory {}", dir.display()));
    }
    for path in entries {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => files(&path, found),
            Ok(_) => drop(found.insert(format!("file {}", path.display()))),
            Err(_) => {}
        }
    }
}
