//! The cgroups of pods and containers, in every hierarchy. No namespace takes them away with it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

const TOP: &str = "/sys/fs/cgroup";
const PREFIX: &str = "lattice-cri-";

/// What a name of ours begins with: it says who made it, so that others can tell when he is gone.
pub(super) fn prefix() -> String {
    format!("{PREFIX}{}-", process::id())
}

/// Every directory of the cgroup `name` in every hierarchy, parents first.
pub(super) fn of(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in hierarchies().into_iter().map(|dir| dir.join(name)).filter(|dir| dir.is_dir()) {
        walk(&dir, &mut found);
    }
    found
}

/// Removes the cgroup `name`, whose processes are about to end.
pub(super) fn remove(name: &str, limit: Duration) {
    let deadline = Instant::now() + limit;
    while !remove_empty(name) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Removes what tests have left that were killed.
pub(super) fn sweep() {
    let entries = hierarchies().into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    names.dedup();
    for name in names.iter().filter_map(|name| name.to_str()).filter(|name| is_orphan(name)) {
        remove_empty(name);
    }
}

/// Whether who made it is gone. Without that in its name it is not ours.
fn is_orphan(name: &str) -> bool {
    let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    let maker = maker.and_then(|(pid, _)| pid.parse::<u32>().ok());
    maker.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Whether nothing of it is left. One with processes stays.
fn remove_empty(name: &str) -> bool {
    for group in of(name).iter().rev() {
        let _ = fs::remove_dir(group);
    }
    of(name).is_empty()
}

fn hierarchies() -> Vec<PathBuf> {
    let below = fs::read_dir(TOP).into_iter().flatten().flatten().map(|entry| entry.path());
    below.chain([PathBuf::from(TOP)]).collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    found.push(dir.to_owned());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Removes its groups also when the test fails.
    struct Groups(Vec<PathBuf>);

    impl Drop for Groups {
        fn drop(&mut self) {
            for group in self.0.iter().rev() {
                let _ = fs::remove_dir(group);
            }
        }
    }

    #[test]
    fn what_a_killed_test_left_is_swept_and_nothing_else() {
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        // Where groups can be made by hand whatever the version.
        let mut tops = ["unified", "pids", "."].map(|dir| Path::new(TOP).join(dir)).into_iter();
        let top = tops.find(|dir| dir.join("cgroup.procs").exists()).unwrap();
        let unique = |pid: u32| format!("{PREFIX}{pid}-sweep{}", process::id());
        let [theirs, ours] = [unique(ended.id()), unique(process::id())].map(|name| top.join(name));
        let other = top.join(format!("{PREFIX}sweep{}", process::id()));
        let groups = Groups(vec![theirs.clone(), theirs.join("pod"), ours.clone(), other.clone()]);
        for group in &groups.0 {
            fs::create_dir(group).unwrap();
        }
        sweep();
        assert!(!theirs.exists());
        assert!(ours.exists() && other.exists());
    }
}
