//! A container's control group, version 1 or 2: statistics, limits, and whether memory ran out.

use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use oci_spec::runtime::LinuxResources;

use crate::error::Result;

/// The groups of one container: one directory per controller in version 1, one in version 2 or hybrid.
#[derive(Debug, Clone)]
pub struct Cgroup {}

/// Tells once, when memory runs out in a group.
#[derive(Debug)]
pub struct OomWatch {}

impl Cgroup {
    /// By the `linux.cgroupsPath` of the OCI spec (`/a/b`, or `slice:prefix:name` for systemd). Nothing is made or read.
    pub fn of_spec(_cgroups_path: Option<&str>, _id: &str) -> Self {
        todo!()
    }

    /// Its directories that exist, for [`crate::place::Record::cgroups`].
    pub fn directories(&self) -> Vec<PathBuf> {
        todo!()
    }

    /// `io.containerd.cgroups.v1.Metrics` or `…v2.Metrics`, by what the host has.
    ///
    /// # Errors
    /// When nothing can be read.
    pub fn metrics(&self) -> Result<Any> {
        todo!()
    }

    /// Writes limits.
    ///
    /// # Errors
    /// Names the file.
    pub fn update(&self, _resources: &LinuxResources) -> Result<()> {
        todo!()
    }

    /// How often memory ran out so far; 0 when it cannot be known.
    pub fn oom_kills(&self) -> u64 {
        todo!()
    }

    /// Begins to watch for memory running out.
    ///
    /// # Errors
    /// When the kernel has no such notification for it.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        todo!()
    }
}

impl OomWatch {
    /// Resolves each time memory runs out; never when the group is gone. Cancel-safe.
    pub async fn next(&mut self) {
        todo!()
    }
}

/// Removes groups in which nothing runs any more; missing ones are fine.
///
/// # Errors
/// Names those that stay.
pub fn remove(_directories: &[PathBuf]) -> Result<()> {
    todo!()
}

/// Puts `pid` into the group that containerd's option `ShimCgroup` names.
///
/// # Errors
/// Names the file.
pub fn enter(_cgroup: &Path, _pid: u32) -> Result<()> {
    todo!()
}
