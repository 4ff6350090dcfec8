//! eBPF: pinned on a bpf file system of the sandbox's own, so that the policy outlives this process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use lattice_audit::Class;
use lattice_ebpf::{Attached, EbpfError, Enforcer, Events, Options, bpffs};
use lattice_overlay::Netns;
use lattice_policy::{Counter, Flow, Pin, Policy, RuleId};

use super::{Enforce, Place, Started, Verdicts, failed};
use crate::{Failure, Kind, failure::chain, sandbox::kernel};

/// The program of one sandbox.
pub(crate) struct Ebpf {
    enforcer: Enforcer,
    netns: Arc<Netns>,
    attached: Option<Attached>,
}

/// What this kernel attaches with.
pub(super) fn probe() -> Result<String, Failure> {
    match lattice_ebpf::probe() {
        Ok(support) if support.tcx => Ok("ebpf/tcx".into()),
        Ok(_) => Ok("ebpf/clsact (a kernel from 6.6 on has tcx)".into()),
        Err(error @ EbpfError::NotPermitted { .. }) => Err(Failure::new(Kind::Privilege, chain(&error))),
        Err(error) => Err(failed(&error)),
    }
}

impl Ebpf {
    /// Loads the program, and polices the links before anything can pass them.
    pub(crate) fn start(place: Place<'_>) -> Result<Started, Failure> {
        let Place { netns, links, own, pins, attach, .. } = place;
        let mounted = BpfDir::mount(pins.clone())?;
        let options = Options { pin_dir: pins, own, attach };
        let mut enforcer = Enforcer::load(&options).map_err(|error| failed(&error))?;
        let verdicts = Box::new(enforcer.events().map_err(|error| failed(&error))?);
        let mut this = Self { enforcer, netns, attached: None };
        for link in links {
            this.police(link)?;
        }
        let words = format!("ebpf/{} (kernel)", this.hook());
        let enforcer = Arc::new(Mutex::new(this));
        let kept = enforcer.clone();
        let undo = move || {
            drop(kept);
            mounted.unmount()
        };
        Ok(Started { enforcer, verdicts, class: Class::Kernel, words, undo: Box::new(undo) })
    }

    fn hook(&self) -> &'static str {
        match self.attached {
            Some(Attached::Tcx) => "tcx",
            Some(Attached::Clsact) => "clsact",
            None => "unattached",
        }
    }
}

impl Enforce for Ebpf {
    fn apply(&mut self, policy: &Policy, pins: &[Pin]) -> Result<(), Failure> {
        self.enforcer.apply(&policy.compile(), pins, policy.generation).map_err(|error| failed(&error))
    }

    fn pin(&mut self, pins: &[Pin]) -> Result<(), Failure> {
        self.enforcer.pin(pins).map_err(|error| failed(&error))
    }

    fn police(&mut self, link: &str) -> Result<(), Failure> {
        let Self { enforcer, netns, attached } = self;
        let how = netns
            .run(|| enforcer.attach(link))
            .map_err(|error| kernel("cannot enter the agent's network namespace", &error))?
            .map_err(|error| failed(&error))?;
        *attached = Some(how);
        Ok(())
    }

    fn police_calls(&mut self, cgroup: &Path) -> Result<String, Failure> {
        self.enforcer.attach_cgroup(cgroup).map_err(|error| failed(&error))?;
        Ok(format!("ebpf/{}+calls (kernel)", self.hook()))
    }

    fn lost(&self) -> Result<u64, Failure> {
        self.enforcer.lost().map_err(|error| failed(&error))
    }

    fn counters(&self) -> Result<Vec<(RuleId, Counter)>, Failure> {
        self.enforcer.counters().map_err(|error| failed(&error))
    }
}

impl Verdicts for Events {
    fn drain(&mut self, f: &mut dyn FnMut(Flow)) -> bool {
        Events::drain(self, f) == Self::BATCH
    }
}

/// A mounted bpf file system, unmounted on every way out.
struct BpfDir(Option<PathBuf>);

impl BpfDir {
    fn mount(dir: PathBuf) -> Result<Self, Failure> {
        bpffs::mount(&dir).map_err(|error| kernel("cannot mount the policy's bpf file system", &error))?;
        Ok(Self(Some(dir)))
    }

    fn unmount(mut self) -> Result<(), String> {
        self.0.take().map_or(Ok(()), |dir| bpffs::unmount(&dir).map_err(|error| chain(&error)))
    }
}

impl Drop for BpfDir {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take() {
            let _ = bpffs::unmount(&dir);
        }
    }
}
