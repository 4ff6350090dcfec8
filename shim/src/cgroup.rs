//! A container's control group, version 1 or 2: statistics, limits, and whether memory ran out.
//!
//! What runsc does with groups, seen with 20221219 and 20240729:
//!
//! - The sandbox, with its gofer, runs in the root container's group. That of a member container is made, gets no limits and
//!   stays empty: its statistics come from the sandbox ([`Usage`]), and limits written there do nothing.
//! - In version 1 a path is taken literally, also one of systemd's form; one that does not begin with `/` lies below runsc's own
//!   group of each hierarchy.
//! - In version 2 the form `slice:prefix:name` is `prefix-name.scope` in that slice, made by systemd if runsc has
//!   `--systemd-cgroup`. The version is 2 where `/sys/fs/cgroup` itself is version 2: in a hybrid host's `unified` runsc makes none.
//!
//! Kernel: `Documentation/admin-guide/cgroup-v1/*.rst`, `cgroup-v2.rst`.

mod epoll;
mod files;
mod host;
mod metrics_v1;
mod metrics_v2;
mod oom;
mod remove;
mod update_v1;
mod update_v2;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use oci_spec::runtime::LinuxResources;

use self::host::Host;
pub use self::{oom::OomWatch, remove::remove, usage::Usage};
use crate::error::{Error, Result};

/// The groups of one container: one directory per controller in version 1, one in version 2.
#[derive(Debug, Clone)]
pub struct Cgroup(Groups);

#[derive(Debug, Clone)]
enum Groups {
    /// By controller, or by `name=…` for a hierarchy without any. Controllers may share a directory.
    V1(BTreeMap<String, PathBuf>),
    V2(PathBuf),
}

impl Cgroup {
    /// By the `linux.cgroupsPath` of the OCI spec, as runsc takes it. Of the groups nothing is made or read; a path that leads upwards
    /// names none.
    pub fn of_spec(cgroups_path: Option<&str>, id: &str) -> Self {
        Self(Host::read().groups(cgroups_path.filter(|path| !path.is_empty()).unwrap_or(&format!("/{id}"))))
    }

    /// Its directories, whether they exist or not: for [`crate::place::Record::cgroups`], before runsc makes them.
    pub fn all(&self) -> BTreeSet<PathBuf> {
        match &self.0 {
            Groups::V1(groups) => groups.values().cloned().collect(),
            Groups::V2(group) => [group.clone()].into(),
        }
    }

    /// Those that exist.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.all().into_iter().filter(|group| group.is_dir()).collect()
    }

    /// Its directory, if it is of version 2.
    pub fn version_2(&self) -> Option<&Path> {
        match &self.0 {
            Groups::V1(_) => None,
            Groups::V2(group) => Some(group),
        }
    }

    /// `io.containerd.cgroups.v1.Metrics` or `…v2.Metrics`, by what the host has. What the kernel does not count is left out.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such group, else the file that cannot be read.
    pub fn metrics(&self) -> Result<Any> {
        if self.directories().is_empty() {
            return Err(Error::NotFound(self.to_string()));
        }
        match &self.0 {
            Groups::V1(groups) => usage::pack("io.containerd.cgroups.v1.Metrics", &metrics_v1::read(groups)?),
            Groups::V2(group) => usage::pack("io.containerd.cgroups.v2.Metrics", &metrics_v2::read(group)?),
        }
    }

    /// Of a member container: the same messages, with what the sandbox counts for it.
    ///
    /// # Errors
    /// Never seen: when the message cannot be encoded.
    pub fn metrics_of_member(&self, usage: &Usage) -> Result<Any> {
        match &self.0 {
            Groups::V1(_) => usage::pack("io.containerd.cgroups.v1.Metrics", &metrics_v1::of_member(usage)),
            Groups::V2(_) => usage::pack("io.containerd.cgroups.v2.Metrics", &metrics_v2::of_member(usage)),
        }
    }

    /// Writes limits. What is not named, or 0 where the OCI specification knows no 0, stays; so do device rules, which containerd sends
    /// along and runsc does not enforce by groups. What was written before an error stays written.
    ///
    /// # Errors
    /// Names the file and the value; [`Error::FailedPrecondition`] for a limit that this host has no controller for.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        if resources
            .network()
            .as_ref()
            .is_some_and(|network| network.class_id().is_some() || network.priorities().is_some())
            || resources.rdma().as_ref().is_some_and(|limits| !limits.is_empty())
        {
            return Err(Error::FailedPrecondition(
                "network classes and RDMA limits of a running container cannot be changed".into(),
            ));
        }
        match &self.0 {
            Groups::V1(groups) => update_v1::update(groups, resources),
            Groups::V2(group) => update_v2::update(group, resources),
        }
    }

    /// How many processes of it the kernel has killed for want of memory; 0 when it cannot be known.
    pub fn oom_kills(&self) -> u64 {
        self.oom_file().and_then(|file| files::read(&file).ok().flatten()).map_or(0, |text| oom::kills(&text))
    }

    /// Begins to watch for memory running out. Inside a runtime.
    ///
    /// # Errors
    /// When there is no such group, or the kernel has no such notification for it.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let file =
            self.oom_file().ok_or_else(|| host::no_controller("memory", "watch for memory running out"))?;
        let watch = match &self.0 {
            Groups::V1(_) => OomWatch::v1(&file),
            Groups::V2(_) => OomWatch::v2(&file),
        };
        watch.map_err(Error::io(format!("watch {}", file.display())))
    }

    fn oom_file(&self) -> Option<PathBuf> {
        match &self.0 {
            Groups::V1(groups) => groups.get("memory").map(|group| group.join("memory.oom_control")),
            Groups::V2(group) => Some(group.join("memory.events")),
        }
    }
}

impl std::fmt::Display for Cgroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Groups::V1(groups) => match groups.get("memory").or_else(|| groups.values().next()) {
                Some(group) => write!(f, "cgroup {} and its like", group.display()),
                None => f.write_str("a cgroup of version 1 below /sys/fs/cgroup"),
            },
            Groups::V2(group) => write!(f, "cgroup {}", group.display()),
        }
    }
}

/// Puts `pid` into the group that containerd's option `ShimCgroup` names, in every hierarchy that has it.
///
/// # Errors
/// Names the file; [`Error::NotFound`] where no hierarchy has it.
pub fn enter(cgroup: &Path, pid: u32) -> Result<()> {
    let group = Cgroup(Host::read().groups(&cgroup.to_string_lossy()));
    let directories = group.directories();
    if directories.is_empty() {
        return Err(Error::NotFound(format!("the cgroup {} of the option ShimCgroup", cgroup.display())));
    }
    directories
        .iter()
        .try_for_each(|directory| files::write(&directory.join("cgroup.procs"), &pid.to_string()))
}

#[cfg(test)]
mod tests;
