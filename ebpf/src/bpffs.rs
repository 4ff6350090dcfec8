//! A BPF file system of a sandbox's own, so that unmounting it drops every pin at once.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount as mount_fs, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::EbpfError;

/// Creates `dir` (mode 0700; its parent must exist) and mounts a new, empty BPF file system on it.
///
/// # Errors
/// When `dir` exists and is not an empty directory, or without `CAP_SYS_ADMIN`. Nothing is left behind.
pub fn mount(dir: &Path) -> Result<(), EbpfError> {
    let fail = |source| EbpfError::Bpffs { doing: "mount", path: dir.into(), source };
    let created = match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(fail(e)),
    };
    if !created && !is_empty_directory(dir).map_err(fail)? {
        return Err(fail(io::ErrorKind::AlreadyExists.into()));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = mount_fs(Some("bpf"), dir, Some("bpf"), flags, Some("mode=0700"));
    mounted.map_err(|e| {
        if created {
            let _ = fs::remove_dir(dir);
        }
        fail(e.into())
    })
}

/// Unmounts what [`mount`] mounted and removes the directory. The kernel frees pinned objects with their last user.
/// Doing it again, or on what was never mounted, is not an error.
///
/// # Errors
/// When the directory cannot be unmounted or removed.
pub fn unmount(dir: &Path) -> Result<(), EbpfError> {
    let fail = |source| EbpfError::Bpffs { doing: "unmount", path: dir.into(), source };
    // Only a bpf file system: a wrong path must not take away somebody else's mount.
    while is_bpffs(dir).map_err(fail)? {
        match umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // A directory inside a bpf file system that is mounted elsewhere.
            Err(Errno::EINVAL) => break,
            Err(e) => return Err(fail(e.into())),
        }
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail(e)),
        _ => Ok(()),
    }
}

fn is_empty_directory(dir: &Path) -> io::Result<bool> {
    Ok(!fs::symlink_metadata(dir)?.is_symlink() && !is_bpffs(dir)? && fs::read_dir(dir)?.next().is_none())
}

pub(crate) fn is_bpffs(dir: &Path) -> io::Result<bool> {
    match statfs(dir) {
        Ok(fs) => Ok(fs.filesystem_type() == BPF_FS_MAGIC),
        Err(Errno::ENOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Unmount<'a>(&'a Path);

    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = unmount(self.0);
        }
    }

    #[test]
    fn a_mount_is_private_and_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("pins");
        let _undo = Unmount(&dir);
        mount(&dir).unwrap();
        assert!(is_bpffs(&dir).unwrap());
        assert!(matches!(mount(&dir), Err(EbpfError::Bpffs { doing: "mount", .. })), "never twice");
        fs::create_dir(dir.join("abi")).unwrap();
        unmount(&dir).unwrap();
        assert!(!dir.exists());
        unmount(&dir).unwrap();
    }

    #[test]
    fn only_an_empty_directory_is_taken_and_nothing_else_is_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(mount(dir.path()).is_err());
        assert!(unmount(dir.path()).is_err());
        assert!(dir.path().join("file").exists());
    }
}
