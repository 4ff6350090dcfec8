//! Removal of groups whose processes have ended.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Component, Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    mounts::table,
};

/// The kernel lets go of a group's last dead task some time after that task's end was seen. For all groups together: containerd gives the
/// `delete` command 5 s for everything.
const PATIENCE: Duration = Duration::from_millis(800);
const PAUSE: Duration = Duration::from_millis(5);
/// Groups in groups, and how many of them: nobody nests a container's deeper, and there is an end.
const DEPTH: usize = 16;
const MOST: usize = 1024;

/// Removes groups, with those in them, in which nothing runs any more; missing ones are fine. Blocks for less than a second.
///
/// # Errors
/// Names those that stay, and why; [`Error::Invalid`], before anything is removed, for a path that is no group.
pub fn remove(directories: &[PathBuf]) -> Result<()> {
    let mounts = table::read().map_err(Error::io("read the mounts of this process"))?;
    let roots: Vec<PathBuf> = mounts
        .into_iter()
        .filter(|entry| matches!(&*entry.kind, "cgroup" | "cgroup2"))
        .map(|entry| entry.point)
        .collect();
    if let Some(other) = directories.iter().find(|directory| !is_group(directory, &roots)) {
        return Err(Error::Invalid(format!("{} is no cgroup", other.display())));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut stay = Vec::new();
    for directory in directories {
        let mut groups = vec![directory.clone()];
        collect(directory, DEPTH, &mut groups);
        // Inner ones come after outer ones.
        for group in groups.iter().rev() {
            if let Err(error) = remove_one(group, deadline) {
                stay.push(format!("{}: {error}", group.display()));
            }
        }
    }
    if stay.is_empty() {
        Ok(())
    } else {
        Err(Error::FailedPrecondition(format!("cannot remove the cgroups {}", stay.join(", "))))
    }
}

/// Below, and not at, the root of a hierarchy.
fn is_group(directory: &Path, roots: &[PathBuf]) -> bool {
    let is_plain =
        directory.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    is_plain
        && roots.iter().any(|root| directory.starts_with(root))
        && !roots.iter().any(|root| root == directory)
}

fn collect(directory: &Path, depth: usize, groups: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if depth > 0 && groups.len() < MOST && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            groups.push(entry.path());
            collect(&entry.path(), depth - 1, groups);
        }
    }
}

fn remove_one(group: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(PAUSE)
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return Ok(()),
        }
    }
}
