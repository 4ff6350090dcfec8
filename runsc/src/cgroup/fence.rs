//! The second fence: a group of version 2 whose calls the policy judges, with the sentry in it. gVisor makes the agent's
//! `connect` and `sendto` calls of the host, so what is denied fails there at once, before there is a packet.
//!
//! The group is below our own, so that limits which a service manager has set for us hold for the sandbox too. Only
//! where runsc itself makes groups of version 2, for limits, it is at the root, and runsc's is in it: runsc sets no limits
//! on a group that it finds, and a group with limits below it may hold no process.
//!
//! Without it the programs on the links decide alone, as surely: a missing fence is told and is no failure.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use lattice_bootstrap::Ready;

use super::{ROOT, is_unified, wanted};
use crate::{AgentSpec, bundle::Bundle, cgroup2};

/// The group.
#[derive(Debug)]
pub(crate) struct Fence {
    dir: PathBuf,
    /// runsc enters it by itself.
    enters_itself: bool,
}

impl Fence {
    /// Makes the group. Says why not when that cannot be; nothing is left then.
    pub(crate) fn make(id: &str, bundle: &Bundle, spec: &AgentSpec) -> Result<Self, String> {
        let enters_itself = wanted(spec) && is_unified();
        let dir = if enters_itself { Path::new(ROOT).to_owned() } else { cgroup2::own()? }.join(id);
        // Before the group: whoever removes the sandbox after a kill must know where it is.
        symlink(&dir, bundle.group()).map_err(|error| format!("{}: {error}", bundle.group().display()))?;
        fs::create_dir(&dir).map_err(|error| format!("cgroup {}: {error}", dir.display()))?;
        Ok(Self { dir, enters_itself })
    }

    /// Has `runsc` enter the group before it is executed: nothing of the sandbox ever runs outside.
    pub(crate) fn surround(&self, runsc: &mut Command) -> Result<(), String> {
        if self.enters_itself { Ok(()) } else { cgroup2::start_in(runsc, &self.dir) }
    }

    /// Has the policy judge its calls: before the agent makes any, after the sandbox may have come into it.
    pub(crate) fn police(&self, ready: &Ready) -> Result<(), String> {
        ready.police_calls(&self.dir).map_err(|failure| failure.message)
    }

    /// Whether the process `pid` is in it.
    pub(crate) fn holds(&self, pid: u32) -> Result<(), String> {
        let group = cgroup2::of(pid)?;
        if group.ancestors().any(|above| cgroup2::is_same(above, &self.dir)) {
            return Ok(());
        }
        Err(format!("runsc runs in the cgroup {}, not in {}", group.display(), self.dir.display()))
    }
}
