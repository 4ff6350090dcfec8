//! The second fence: the programs on the calls of a cgroup, whose denied `connect` and `sendto` fail at once.

use std::{
    fs::{self, DirBuilder, File},
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};

use crate::{
    EbpfError,
    enforcer::{load_all, program, refused},
    pinned, syscall,
};

const PROGRAMS: [&str; 4] = ["connect4", "connect6", "sendmsg4", "sendmsg6"];

/// Attaches all four, or fails. Those that are attached already stay until the new ones are.
pub(crate) fn attach(ebpf: &mut Ebpf, dir: &Path, pins: &Path) -> Result<(), EbpfError> {
    let fail = |source| EbpfError::Cgroup { path: dir.into(), source };
    let cgroup = File::open(dir).map_err(|e| fail(e.into()))?;
    let id = cgroup.metadata().map_err(|e| fail(e.into()))?.ino();
    if !syscall::has_cgroup_hooks(cgroup.as_fd()) {
        return Err(fail("the kernel has no hooks for programs there".into()));
    }
    pinned::remove_gone(pins).map_err(|e| fail(e.into()))?;
    load_all(ebpf, &PROGRAMS)?;
    for name in PROGRAMS {
        let program: &mut CgroupSockAddr = program(ebpf, name)?;
        let attached = program.attach(&cgroup, CgroupAttachMode::Single).map_err(|e| refused(name, e))?;
        let link = program.take_link(attached).map_err(|e| refused(name, e))?;
        let link = FdLink::try_from(link).map_err(|e| fail(e.into()))?;
        pinned::replace(link, &pinned::path(pins, format_args!("cgroup{id}-{name}"))).map_err(fail)?;
    }
    Ok(())
}

/// Whether cgroups can be made here whose calls programs can police.
pub(crate) fn is_usable() -> bool {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let Some(root) = mount_point(&fs::read_to_string("/proc/mounts").unwrap_or_default()) else {
        return false;
    };
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let scratch = root.join(format!("lattice-probe-{}-{number}", process::id()));
    if DirBuilder::new().mode(0o700).create(&scratch).is_err() {
        return false;
    }
    let usable = File::open(&scratch).is_ok_and(|dir| syscall::has_cgroup_hooks(dir.as_fd()));
    let _ = fs::remove_dir(&scratch);
    usable
}

/// Where the version 2 hierarchy is mounted, by the text of `/proc/mounts` (`fstab(5)`).
pub(crate) fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| at.replace("\\040", " ").into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_is_found() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n";
        assert_eq!(mount_point(v1), None);
        let both = format!("{v1}cgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw,relatime 0 0\n");
        assert_eq!(mount_point(&both), Some("/sys/fs/cgroup/uni fied".into()));
    }
}
