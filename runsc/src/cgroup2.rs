//! Groups of cgroup version 2: where processes are in it, and how one starts in another. Both the CLI's sandboxes and the shim's
//! pods have the policy judge the calls of such a group.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
    process::Command,
};

use crate::runsc::start_in_group;

/// The directory of this process's own group.
///
/// # Errors
/// When there is no version 2, or no mount shows the group.
pub fn own() -> Result<PathBuf, String> {
    shown(&proc_file("self")?)
}

/// The directory of the group of process `pid`.
///
/// # Errors
/// Likewise, and when there is no such process.
pub fn of(pid: u32) -> Result<PathBuf, String> {
    shown(&proc_file(&pid.to_string())?)
}

/// Has `command` enter `group` before it is executed: nothing of it ever runs outside. When the kernel refuses, it runs where we do:
/// look where it is.
///
/// # Errors
/// When the group cannot be entered by anybody.
pub fn start_in(command: &mut Command, group: &Path) -> Result<(), String> {
    let procs = group.join("cgroup.procs");
    let door = OpenOptions::new().write(true).open(&procs);
    start_in_group(command, door.map_err(|error| format!("{}: {error}", procs.display()))?);
    Ok(())
}

/// Whether two directories are one group, by whatever mounts.
pub fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

fn proc_file(whose: &str) -> Result<Vec<u8>, String> {
    read(&format!("/proc/{whose}/cgroup"))
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{path}: {error}"))
}

/// Where a mount shows the group in the text of `/proc/<pid>/cgroup`.
fn shown(text: &[u8]) -> Result<PathBuf, String> {
    let mounts = mount_points(&read("/proc/self/mounts")?);
    let group = group_of(text).ok_or("the kernel has no cgroup v2")?;
    if mounts.is_empty() {
        return Err("no cgroup v2 is mounted".into());
    }
    // One outside a cgroup namespace's root begins with `..`; a mount of a part of the hierarchy does not show it.
    let below: PathBuf = group.components().filter(|part| *part != Component::RootDir).collect();
    let hidden = || format!("no mounted cgroup v2 shows the cgroup {}", group.display());
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
