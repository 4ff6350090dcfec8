//! The mounts by which containerd's snapshotter gives a container its root file system.
//!
//! An option means what it means to containerd (`core/mount/mount_linux.go`). What containerd itself must have handled
//! before us, such as a loop device, is refused by name: mounted without it, the container would get another file system
//! than the one that was asked for.

mod kernel;
mod options;
mod overlay;
pub(crate) mod table;

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path};

use containerd_shim_protos::api::Mount;
use nix::errno::Errno;

use self::{kernel::Mounted, options::Options};
use crate::error::{Error, Result};

/// Mounts stacked on one place: more than anybody stacks, and an end for the loop.
const STACKED: usize = 256;

/// Mounts them at `target`, in order; makes `target` when it is not there. On failure nothing stays mounted.
///
/// A mount's own `target` is a path below: links in it are followed as if `target` were `/`, so that no image can name a
/// place outside.
///
/// # Errors
/// [`Error::Invalid`] for what only containerd can mount, else what the kernel said; both name the mount.
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o711).create(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io(format!("create {}", target.display()))(error));
        }
        _ => {}
    }
    let mut done = Vec::with_capacity(mounts.len());
    for mount in mounts {
        match mount_one(mount, target, &mut done) {
            Ok(()) => {}
            Err(error) => {
                done.into_iter().rev().for_each(Mounted::undo);
                return Err(error);
            }
        }
    }
    Ok(())
}

fn mount_one(mount: &Mount, target: &Path, done: &mut Vec<Mounted>) -> Result<()> {
    let what = || format!("mount {} {:?} at {}{}", mount.type_, mount.source, target.display(), mount.target);
    let options =
        Options::parse(mount).map_err(|reason| Error::Invalid(format!("cannot {}: {reason}", what())))?;
    let refused = |errno: Errno| Error::io(what())(errno.into());
    let place = kernel::open_below(target, &mount.target).map_err(refused)?;
    kernel::mount(mount, &options, &place).map_err(refused)?;
    drop(place);
    let mounted = kernel::open_below(target, &mount.target).map(Mounted::new).map_err(refused)?;
    let set = if options.is_bind() { mounted.set_flags(&options) } else { Ok(()) };
    done.push(mounted);
    set.map_err(refused)
}

/// Unmounts everything at and below `target`, lazily; nothing mounted there is fine, and so is no such directory.
///
/// # Errors
/// What the kernel said.
pub fn unmount_all(target: &Path) -> Result<()> {
    let what = || format!("unmount {}", target.display());
    kernel::unmount_stacked(target, STACKED).map_err(Error::io(what()))?;
    let below = match table::below(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(Error::io(what()))?,
    };
    for point in below.iter().rev() {
        kernel::unmount_stacked(point, STACKED).map_err(Error::io(format!("unmount {}", point.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
