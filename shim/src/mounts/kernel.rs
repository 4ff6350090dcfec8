//! mount(2) and umount2(2), on places that are held by descriptor: what was checked is what is mounted on.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use containerd_shim_protos::api::Mount;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    mount::{MntFlags, MsFlags, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        stat::Mode,
        statvfs::{FsFlags, fstatvfs},
    },
    unistd::chdir,
};

use super::options::Options;

const PLACE: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// `path` below `root` as one sees it who has `root` for `/`: neither `..` nor a link leads out of it. On top of what is mounted there.
pub(super) fn open_below(root: &Path, path: &str) -> Result<OwnedFd, Errno> {
    let root = open(root, PLACE | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
    let path = if path.is_empty() { "." } else { path };
    let how = OpenHow::new()
        .flags(PLACE)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Mounts at `place`. Data with relative paths is read in a thread of its own that has another working directory: the directory is
/// the thread's, and ends with it.
pub(super) fn mount(mount: &Mount, options: &Options, place: &OwnedFd) -> Result<(), Errno> {
    let source = Some(mount.source.as_str()).filter(|source| !source.is_empty());
    let at = path_of(place);
    let call = || {
        nix::mount::mount(source, &at, Some(mount.type_.as_str()), options.flags, Some(options.data.as_str()))
    };
    let Some(from) = &options.from else { return call() };
    let from_there = || {
        unshare(CloneFlags::CLONE_FS)?;
        chdir(from.as_str())?;
        call()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, from_there).map_err(|_| Errno::EAGAIN)?;
        thread.join().unwrap_or(Err(Errno::EIO))
    })
}

/// A mount that was made here, held by its root.
#[derive(Debug)]
pub(super) struct Mounted(OwnedFd);

impl Mounted {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// Gives a bind mount its flags, and leaves it those that what is bound has.
    pub(super) fn set_flags(&self, options: &Options) -> Result<(), Errno> {
        let bound = fstatvfs(&self.0)?.flags();
        let kept = [
            (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
            (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
            (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        ];
        let kept = kept.into_iter().filter(|(flag, _)| bound.contains(*flag)).map(|(_, flag)| flag);
        let flags = kept.fold(options.flags | MsFlags::MS_REMOUNT, MsFlags::union);
        nix::mount::mount(None::<&str>, &path_of(&self.0), None::<&str>, flags, None::<&str>)
    }

    /// Best effort: whoever undoes has an error to report already.
    pub(super) fn undo(self) {
        if let Err(errno) = umount2(&path_of(&self.0), MntFlags::MNT_DETACH) {
            tracing::warn!("cannot take a mount away again: {errno}");
        }
    }
}

/// Takes away, lazily, all that is mounted at `point`, at most `limit` mounts.
pub(super) fn unmount_stacked(point: &Path, limit: usize) -> io::Result<()> {
    for _ in 0..limit {
        match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there; or it went with the mount that it was in.
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::other(format!("more than {limit} mounts are stacked there")))
}

fn path_of(place: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", place.as_raw_fd()).into()
}
