//! The second fence: a group of version 2 whose calls the policy judges, with the sentry in it. gVisor makes the agent's
//! `connect` and `sendto` calls of the host, so what is denied fails there at once, before there is a packet.
//!
//! The group is below our own, so that limits which a service manager has set for us hold for the sandbox too. Only
//! where runsc itself makes groups of version 2, for limits, it is at the root, and runsc's is in it: runsc sets no limits
//! on a group that it finds, and a group with limits below it may hold no process.
//!
//! Without it the programs on the links decide alone, as surely: a missing fence is told and is no failure.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Component, Path, PathBuf},
    process::Command,
};

use lattice_bootstrap::Ready;

use super::{ROOT, is_unified, remove_group, wanted};
use crate::{AgentSpec, bundle::Bundle, runsc::start_in_group};

/// A policed group.
#[derive(Debug)]
pub(crate) struct Fence {
    id: String,
    /// By which runsc enters the group, where it does not do so itself.
    door: Option<File>,
}

impl Fence {
    /// Makes the group and has its calls policed. Says why not when that cannot be; nothing is left then.
    pub(crate) fn raise(id: &str, bundle: &Bundle, ready: &Ready, spec: &AgentSpec) -> Result<Self, String> {
        let enters_itself = wanted(spec) && is_unified();
        let dir = if enters_itself { Path::new(ROOT).to_owned() } else { own_group()? }.join(id);
        // Before the group: whoever removes the sandbox after a kill must know where it is.
        symlink(&dir, bundle.group()).map_err(|error| format!("{}: {error}", bundle.group().display()))?;
        fs::create_dir(&dir).map_err(|error| format!("cgroup {}: {error}", dir.display()))?;
        let raise = || {
            ready.police_calls(&dir).map_err(|failure| failure.message)?;
            let procs = dir.join("cgroup.procs");
            let open = || OpenOptions::new().write(true).open(&procs);
            let door = (!enters_itself).then(open).transpose();
            door.map_err(|error| format!("{}: {error}", procs.display()))
        };
        match raise() {
            Ok(door) => Ok(Self { id: id.to_owned(), door }),
            Err(reason) => {
                let _ = remove_group(&dir);
                Err(reason)
            }
        }
    }

    /// Has `runsc` enter the group before it is executed: nothing of the sandbox ever runs outside.
    pub(crate) fn surround(&mut self, runsc: &mut Command) {
        if let Some(door) = self.door.take() {
            start_in_group(runsc, door);
        }
    }

    /// Whether the process `pid` is in it.
    pub(crate) fn holds(&self, pid: u32) -> Result<(), String> {
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
        let group = group_of(&text).unwrap_or(Path::new("/"));
        if group.components().any(|part| part.as_os_str() == self.id.as_str()) {
            return Ok(());
        }
        Err(format!("runsc runs in the cgroup {}, not in {}", group.display(), self.id))
    }
}

/// The directory of our own group.
fn own_group() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read(path).map_err(|error| format!("{path}: {error}"));
    let mounts = mount_points(&read("/proc/self/mounts")?);
    let text = read("/proc/self/cgroup")?;
    let group = group_of(&text).ok_or("the kernel has no cgroup v2")?;
    if mounts.is_empty() {
        return Err("no cgroup v2 is mounted".into());
    }
    // One outside a cgroup namespace's root begins with `..`; a mount of a part of the hierarchy does not show it.
    let below: PathBuf = group.components().filter(|part| *part != Component::RootDir).collect();
    let hidden = || format!("no mounted cgroup v2 shows our own cgroup {}", group.display());
    if below.components().any(|part| part == Component::ParentDir) {
        return Err(hidden());
    }
    mounts.into_iter().map(|at| at.join(&below)).find(|dir| dir.is_dir()).ok_or_else(hidden)
}

/// The group of version 2 in the text of `/proc/<pid>/cgroup` (`cgroups(7)`).
fn group_of(text: &[u8]) -> Option<&Path> {
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(Path::new(OsStr::from_bytes(path)))
}

/// Where version 2 is mounted, by the text of `/proc/self/mounts` (`fstab(5)`).
fn mount_points(text: &[u8]) -> Vec<PathBuf> {
    let lines = text.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        (kind == b"cgroup2").then(|| String::from_utf8_lossy(at).replace("\\040", " ").into())
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        let groups = b"4:memory:/x\n1:name=systemd:/y\n0::/system.slice/agent.service\n";
        assert_eq!(group_of(groups), Some(Path::new("/system.slice/agent.service")));
        assert_eq!(group_of(b"4:memory:/x\n"), None);
        let mounts = b"cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /a\\040b cgroup2 rw 0 0\nx /c cgroup2 rw 0 0\n";
        assert_eq!(mount_points(mounts), [Path::new("/a b"), Path::new("/c")]);
    }
}
