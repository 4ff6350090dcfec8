//! Control groups of a sandbox: whether limits can be enforced here, the fence around its calls, and the removal of what
//! is left of both.

mod fence;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::unistd::{AccessFlags, access};

pub(crate) use fence::Fence;

use crate::{AgentSpec, RunscError};

const ROOT: &str = "/sys/fs/cgroup";
/// The group with limits in that with the policed calls.
const LIMITED: &str = "agent";
/// A group can be removed once the kernel has let go of its last dead task, which comes some time after that task's
/// end was seen.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn wanted(spec: &AgentSpec) -> bool {
    spec.memory_bytes.is_some() || spec.cpus.is_some() || spec.pids.is_some()
}

/// Whether there is version 2 alone.
fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The group whose limits runsc sets, the same in every hierarchy.
pub(crate) fn path(id: &str) -> PathBuf {
    let group = Path::new("/").join(id);
    if is_unified() { group.join(LIMITED) } else { group }
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

/// Removes the sandbox's groups: `/<id>` of every hierarchy, and `noted`. Their tasks must have ended.
pub(crate) fn remove(id: &str, noted: Option<PathBuf>) -> Result<(), String> {
    let mut groups = vec![Path::new(ROOT).join(id)];
    groups.extend(fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path().join(id)));
    groups.extend(noted.filter(|group| group.file_name() == Some(id.as_ref())));
    groups.iter().try_for_each(|group| remove_group(group))
}

fn remove_group(group: &Path) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    for group in [&group.join(LIMITED), group] {
        loop {
            match fs::remove_dir(group) {
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
