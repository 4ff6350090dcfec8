//! Control groups of a sandbox: whether limits can be enforced here, and the removal of what is left of them.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::unistd::{AccessFlags, access};

use crate::{AgentSpec, RunscError};

const ROOT: &str = "/sys/fs/cgroup";
/// A group can be removed once the kernel has let go of its last dead task, which comes some time after that task's
/// end was seen.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn wanted(spec: &AgentSpec) -> bool {
    spec.memory_bytes.is_some() || spec.cpus.is_some() || spec.pids.is_some()
}

/// The group of a sandbox, the same in every hierarchy.
pub(crate) fn path(id: &str) -> PathBuf {
    Path::new("/").join(id)
}

/// Refuses limits that would silently not hold.
pub(crate) fn check(spec: &AgentSpec) -> Result<(), RunscError> {
    let unified = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).ok();
    let asked = [
        ("memory", spec.memory_bytes.is_some()),
        ("cpu", spec.cpus.is_some()),
        ("pids", spec.pids.is_some()),
    ];
    for (what, _) in asked.into_iter().filter(|(_, asked)| *asked) {
        let (dir, there) = match &unified {
            Some(list) => (PathBuf::from(ROOT), list.split_whitespace().any(|name| name == what)),
            None => {
                let dir = Path::new(ROOT).join(what);
                let there = dir.join("cgroup.procs").exists();
                (dir, there)
            }
        };
        if !there || access(&dir, AccessFlags::W_OK).is_err() {
            return Err(RunscError::NoCgroup { what });
        }
    }
    Ok(())
}

/// Removes the sandbox's group from every hierarchy. Its tasks must have ended.
pub(crate) fn remove(id: &str) -> Result<(), String> {
    let mut hierarchies = vec![PathBuf::from(ROOT)];
    hierarchies.extend(fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path()));
    let deadline = Instant::now() + PATIENCE;
    for group in hierarchies.into_iter().map(|dir| dir.join(id)) {
        loop {
            match fs::remove_dir(&group) {
                Ok(()) => break,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => break,
                Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(format!("cgroup {}: {error}", group.display())),
            }
        }
    }
    Ok(())
}
