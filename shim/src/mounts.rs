//! The mounts by which containerd's snapshotter gives a container its root file system.

use std::path::Path;

use containerd_shim_protos::api::Mount;

use crate::error::Result;

/// Mounts them at `target`, in order. On failure nothing stays mounted.
///
/// # Errors
/// Names the mount and what the kernel said.
pub fn mount_all(_mounts: &[Mount], _target: &Path) -> Result<()> {
    todo!()
}

/// Unmounts everything at `target`, lazily; nothing mounted there is fine.
///
/// # Errors
/// What the kernel said.
pub fn unmount_all(_target: &Path) -> Result<()> {
    todo!()
}
