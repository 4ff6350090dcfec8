//! The second fence, around a pod: the policy judges the calls of its sandbox as well as its packets, so that what is denied fails
//! with `EPERM` at once.
//!
//! The fence is a cgroup of version 2 that holds gVisor's kernel, which makes the calls of all containers, for its whole life. Where
//! runsc makes groups of version 2 it is the root container's own, with its limits: the programs are attached once runsc has made it,
//! before any program of the pod is started or, where a later container brings the token, before that container is. Elsewhere (both
//! versions are mounted and runsc takes version 1, or the spec names no group) it is one of ours below the shim's own group, and
//! runsc is started in it.
//!
//! Without it the programs on the links decide alone, as surely: a missing fence is told and is no failure.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use lattice_bootstrap::Ready;
use lattice_runsc::cgroup2;
use oci_spec::runtime::Spec;

use super::pod::Pod;
use crate::{cgroup::Cgroup, config::NetworkKind};

const MISSING: &str = "the agent's calls are not policed, only its packets";

/// Makes a group for the sandbox, unless runsc makes one of version 2. It is noted first: whoever cleans up after us must find it.
pub(super) fn raise(pod: &Pod, spec: &Spec) -> Option<PathBuf> {
    let is_ours = pod.config().is_ok_and(|config| config.network == NetworkKind::Lattice);
    let names_group = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_deref())
        .is_some_and(|path| path != "");
    let runsc_makes_it = names_group && super::create::cgroup_of(spec, pod.place.id()).version_2().is_some();
    if !is_ours || runsc_makes_it {
        return None;
    }
    let note = |fence| pod.note(|record| record.fence = fence).map_err(|error| error.to_string());
    let made = || -> Result<PathBuf, String> {
        let group = cgroup2::own()?.join(name(pod.place.dir(), pod.place.id())?);
        note(Some(group.clone()))?;
        match fs::create_dir(&group) {
            Ok(()) => Ok(group),
            Err(error) => {
                note(None)?;
                Err(format!("cgroup {}: {error}", group.display()))
            }
        }
    };
    made().map_err(|reason| tracing::warn!(reason, MISSING)).ok()
}

/// Unique on the host: several containerds and their namespaces may have pods of one id.
fn name(dir: &Path, id: &str) -> Result<String, String> {
    let meta = fs::metadata(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(format!("lattice-pod-{id}-{:x}.{:x}", meta.dev(), meta.ino()))
}

/// Has the policy judge the calls of the sandbox, whose first process is `pid`.
pub(super) fn police(pod: &Pod, ready: &Ready, cgroup: &Cgroup, pid: u32) {
    let police = || -> Result<PathBuf, String> {
        let group =
            pod.fence().or_else(|| cgroup.version_2().map(Path::to_owned)).ok_or("it has no cgroup v2")?;
        let holds = cgroup2::of(pid)?;
        if !cgroup2::is_same(&holds, &group) {
            return Err(format!("runsc runs in the cgroup {}, not in {}", holds.display(), group.display()));
        }
        ready.police_calls(&group).map_err(|failure| failure.message)?;
        Ok(group)
    };
    match police() {
        Ok(group) => {
            ready.tell_calls_policed();
            tracing::info!(group = %group.display(), "the agent's calls are policed");
        }
        Err(reason) => tracing::warn!(reason, MISSING),
    }
}
