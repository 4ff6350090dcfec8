//! eBPF: pinned on a bpf file system of the sandbox's own, so that the policy outlives this process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use lattice_audit::Class;
use lattice_ebpf::{AttachMode, Attached, EbpfError, Enforcer, Events, Framing, Options, bpffs};
use lattice_overlay::Netns;
use lattice_policy::{Counter, Flow, Pin, Policy, RuleId, Table};

use super::{Enforce, Place, PolicedLink, Started, Verdicts, failed};
use crate::{
    Failure, Kind,
    failure::{chain, kernel},
};

/// The program of one sandbox.
struct Ebpf {
    enforcer: Enforcer,
    netns: Arc<Netns>,
    links: Vec<PolicedLink>,
    attached: Option<Attached>,
}

/// The program of a sandbox whose links are still to come. The kernel takes its time for it, which an
/// enrolment takes as well.
pub(crate) struct Preparing(Option<JoinHandle<Result<(BpfDir, Enforcer), Failure>>>);

/// What this kernel attaches with.
pub(super) fn probe() -> Result<String, Failure> {
    match lattice_ebpf::probe() {
        Ok(support) if support.tcx => Ok("ebpf/tcx".into()),
        Ok(_) => Ok("ebpf/clsact (a kernel from 6.6 on has tcx)".into()),
        Err(error @ EbpfError::NotPermitted { .. }) => Err(Failure::new(Kind::Privilege, chain(&error))),
        Err(error) => Err(failed(&error)),
    }
}

impl Preparing {
    /// Begins to load it.
    pub(super) fn begin(pins: PathBuf, attach: AttachMode) -> Result<Self, Failure> {
        let load = move || {
            let mounted = BpfDir::mount(pins.clone())?;
            let options = Options { pin_dir: pins, own: Vec::new(), attach };
            let mut enforcer = Enforcer::load(&options).map_err(|error| failed(&error))?;
            // What a WireGuard link takes.
            enforcer.prepare(&[Framing::Ip]).map_err(|error| failed(&error))?;
            Ok((mounted, enforcer))
        };
        let thread = thread::Builder::new().name("policy".into()).spawn(load);
        thread.map(|thread| Self(Some(thread))).map_err(|error| Failure::new(Kind::Internal, error))
    }

    /// Polices the links before anything can pass them.
    pub(super) fn start(mut self, place: Place) -> Result<Started, Failure> {
        let (mounted, mut enforcer) = self.wait()?;
        let verdicts = Box::new(enforcer.events().map_err(|error| failed(&error))?);
        let links = place.links.clone();
        let mut this = Ebpf { enforcer, netns: place.netns, links: place.links, attached: None };
        for link in links {
            this.police(&link.name)?;
        }
        if let Some((overlay, link)) = place.confined {
            let Ebpf { enforcer, netns, .. } = &mut this;
            netns
                .run(|| enforcer.confine(&overlay, link))
                .map_err(|error| kernel("cannot enter the agent's network namespace", &error))?
                .map_err(|error| failed(&error))?;
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

    fn wait(&mut self) -> Result<(BpfDir, Enforcer), Failure> {
        let panicked = || Failure::new(Kind::Internal, "the policy's loader panicked");
        let thread = self.0.take().ok_or_else(panicked)?;
        thread.join().unwrap_or_else(|_| Err(panicked()))
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        if self.0.is_some() {
            let _ = self.wait();
        }
    }
}

impl Ebpf {
    fn hook(&self) -> &'static str {
        match self.attached {
            Some(Attached::Tcx) => "tcx",
            Some(Attached::Clsact) => "clsact",
            None => "unattached",
        }
    }
}

impl Enforce for Ebpf {
    fn apply(&mut self, policy: &Policy, table: &Table, pins: &[Pin]) -> Result<(), Failure> {
        self.enforcer.apply(table, pins, policy.generation).map_err(|error| failed(&error))
    }

    fn pin(&mut self, pins: &[Pin]) -> Result<(), Failure> {
        self.enforcer.pin(pins).map_err(|error| failed(&error))
    }

    fn police(&mut self, link: &str) -> Result<(), Failure> {
        let Self { enforcer, netns, links, attached } = self;
        // A link that nobody announced has no address of the sandbox's.
        let own = links.iter().find(|known| known.name == link).map_or(&[][..], |known| &known.own);
        let how = netns
            .run(|| enforcer.attach(link, own))
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

#[cfg(test)]
mod tests {
    use std::{
        thread::sleep,
        time::{Duration, Instant},
    };

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    /// As when the enrolment fails, or a signal comes.
    #[test]
    fn what_is_loaded_and_not_started_leaves_nothing() {
        // The kernel unmounts what is left even if the test is killed.
        unshare(CloneFlags::CLONE_NEWNS).expect("needs CAP_SYS_ADMIN: run the tests as root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("pins");
        let preparing = Preparing::begin(pins.clone(), AttachMode::Auto).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !pins.exists() && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
        assert!(pins.exists(), "it never began");
        drop(preparing);
        assert!(!pins.exists(), "neither mounted nor there");
    }
}
