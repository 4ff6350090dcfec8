//! Mounts as descriptors, and their attributes: `open_tree(2)`, `move_mount(2)`, `mount_setattr(2)`.
#![allow(unsafe_code)] // system calls that nix does not wrap

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{errno::Errno, sys::stat::fstat};

/// `linux/mount.h`.
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;

/// A copy of all that is mounted at and below a directory, which is nowhere yet.
#[derive(Debug)]
pub(super) struct Tree(OwnedFd);

impl Tree {
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` over the mount namespace.
    pub(super) fn copy(dir: &Path) -> io::Result<Self> {
        let path = c_string(dir)?;
        let flags =
            libc::OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_RECURSIVE as libc::c_uint;
        // SAFETY: the path ends in NUL and outlives the call, which makes a descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
        let fd = i32::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just opened it for us, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Device and inode of the directory that was copied.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn id(&self) -> io::Result<(u64, u64)> {
        let found = fstat(&self.0)?;
        Ok((found.st_dev, found.st_ino))
    }

    /// Makes all of it read-only.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn make_read_only(&self) -> io::Result<()> {
        set(self.0.as_raw_fd(), c"", libc::MOUNT_ATTR_RDONLY)
    }

    /// Mounts it at `dir`, with the attributes that were copied.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn attach(self, dir: &Path) -> io::Result<()> {
        let (path, empty) = (c_string(dir)?, c"");
        // SAFETY: both paths end in NUL and outlive the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                empty.as_ptr(),
                libc::AT_FDCWD,
                path.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        };
        Errno::result(done)?;
        Ok(())
    }
}

/// Makes everything that is mounted at and below `dir` read-only.
///
/// # Errors
/// `ENOSYS` before Linux 5.12; `EBUSY` where a file is open to be written.
pub(super) fn make_read_only(dir: &Path) -> io::Result<()> {
    set(libc::AT_FDCWD, &c_string(dir)?, libc::MOUNT_ATTR_RDONLY)
}

/// Whether the kernel has these calls.
///
/// # Errors
/// `ENOSYS` when not.
pub(super) fn are_there() -> io::Result<()> {
    // Nothing is changed. It is the youngest of the three.
    set(libc::AT_FDCWD, c"/", 0)
}

/// Of what is mounted at and below `path`, from the directory of `fd` on, or of `fd` itself without a path.
fn set(fd: RawFd, path: &std::ffi::CStr, attributes: u64) -> io::Result<()> {
    let all = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path ends in NUL, and it and the attributes, of which the size is told, outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            path.as_ptr(),
            libc::AT_RECURSIVE | libc::AT_EMPTY_PATH,
            &raw const all,
            size_of_val(&all),
        )
    };
    Errno::result(done)?;
    Ok(())
}

fn c_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
