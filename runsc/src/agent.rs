//! A running agent: started, signalled, awaited, and removed without trace when dropped.

mod child;
mod created;
mod gate;
mod stdio;

use std::{
    path::Path,
    process::Stdio,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lattice_bootstrap::Ready;
use nix::sys::signal::Signal;

pub use created::Created;
pub use stdio::AgentStdio;

use crate::{AgentSpec, Globals, Runsc, RunscError, Target, Verb, error::last_error_in_log, remains::Claim};
use child::Child;

/// Loaded machines have needed 2 s. A platform that hangs (kvm does on some hosts) must not hang us.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Between the sandbox's birth and the agent's first instruction runsc refuses signals for some 40 ms.
const SIGNAL_LIMIT: Duration = Duration::from_secs(5);
const SIGNAL_RETRY: Duration = Duration::from_millis(20);
/// What runsc itself exits with when it could not do its work.
const RUNSC_FAILED: i32 = 128;

/// How long the parts of a start took.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// Checking the spec and writing the bundle.
    pub bundle: Duration,
    /// From the start of `runsc` until the sandbox stood and its start was asked for; the agent's program is executed right after.
    pub create: Duration,
}

/// One agent under gVisor. Dropping it kills it and removes everything of it.
#[derive(Debug)]
pub struct Agent {
    timings: Timings,
    sandbox_pid: u32,
    calls: Result<(), String>,
    handle: Signaller,
    // Dropped in this order: the copies end when no process of the sandbox holds their pipes any more.
    claim: Arc<Claim>,
    copies: stdio::Copies,
}

/// A handle that signals an agent from another thread while one waits for it.
#[derive(Debug, Clone)]
pub struct Signaller {
    name: String,
    runsc: Runsc,
    child: Arc<Child>,
    claim: std::sync::Weak<Claim>,
}

impl Runsc {
    /// Starts `spec` in the network namespace of `ready`, with our standard streams. Returns when its sandbox stands.
    ///
    /// Everything of it is kept in `<state_dir>/runsc/<id>/` (0700). Blocks for some 0.2 s.
    ///
    /// # Errors
    /// What [`validate`](crate::validate) says; [`RunscError::NameTaken`]; [`RunscError::Runsc`] with runsc's own reason. Nothing is
    /// left behind then.
    pub fn start(&self, ready: &Ready, spec: &AgentSpec, state_dir: &Path) -> Result<Agent, RunscError> {
        self.start_with_stdio(ready, spec, state_dir, AgentStdio::inherit())
    }

    /// [`Runsc::start`] with streams of the caller's choice.
    ///
    /// # Errors
    /// As [`Runsc::start`].
    pub fn start_with_stdio(
        &self,
        ready: &Ready,
        spec: &AgentSpec,
        state_dir: &Path,
        stdio: AgentStdio,
    ) -> Result<Agent, RunscError> {
        self.create(ready.netns(), spec, state_dir, stdio)?.start(ready)
    }
}

impl Agent {
    /// The process id of `runsc run`, whose end is the agent's end.
    pub fn pid(&self) -> u32 {
        self.handle.child.pid()
    }

    /// The process id of the sentry: gVisor's kernel, in which the agent runs.
    pub fn sandbox_pid(&self) -> u32 {
        self.sandbox_pid
    }

    /// Whether the policy judges its calls, and not only its packets; else why not.
    ///
    /// # Errors
    /// The reason: no cgroup version 2, no hooks in it, another enforcer.
    pub fn calls(&self) -> Result<(), &str> {
        self.calls.as_ref().copied().map_err(String::as_str)
    }

    /// How long the start took.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// Sends `signal` to the agent's first process. Blocks for some 40 ms, but not for SIGKILL.
    ///
    /// # Errors
    /// [`RunscError::Ended`] when there is nobody to signal.
    pub fn signal(&self, signal: Signal) -> Result<(), RunscError> {
        self.handle.send(signal)
    }

    /// A handle for [`Agent::signal`] while another thread is in [`Agent::wait`].
    pub fn signaller(&self) -> Signaller {
        self.handle.clone()
    }

    /// Waits for the agent's end and gives its exit code as a shell would: 128 + n when signal n killed it.
    ///
    /// # Errors
    /// [`RunscError::Runsc`] when runsc, not the agent, failed.
    pub fn wait(&mut self) -> Result<i32, RunscError> {
        let code = self
            .handle
            .child
            .wait()
            .map_err(|source| RunscError::NotRunnable { path: self.handle.runsc.path.clone(), source })?;
        self.copies.finish();
        match last_error_in_log(&self.claim.bundle().log()) {
            Some(reason) if code == RUNSC_FAILED => {
                Err(RunscError::Runsc { name: self.handle.name.clone(), reason })
            }
            _ => Ok(code),
        }
    }

    fn failure(&mut self, unless_logged: &str) -> RunscError {
        match self.wait() {
            Err(error) => error,
            Ok(code) => RunscError::Runsc {
                name: self.handle.name.clone(),
                reason: format!("{unless_logged} (exit code {code})"),
            },
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // All at once and while all can be told by their arguments: a process whose parent was killed first is dying of
        // that, and has no arguments any more. The claim, dropped next, removes the files.
        if !self.handle.child.has_ended()
            && let Err(reason) = self.claim.kill_all()
        {
            tracing::warn!(reason, "not every process of the sandbox could be ended");
        }
        self.handle.child.kill();
        drop(self.handle.child.wait());
    }
}

impl Signaller {
    /// [`Agent::signal`].
    ///
    /// # Errors
    /// As [`Agent::signal`].
    pub fn send(&self, signal: Signal) -> Result<(), RunscError> {
        let ended = || RunscError::Ended(self.name.clone());
        if signal == Signal::SIGKILL {
            return if self.child.kill() { Ok(()) } else { Err(ended()) };
        }
        let deadline = Instant::now() + SIGNAL_LIMIT;
        loop {
            let claim = self.claim.upgrade().filter(|_| !self.child.has_ended()).ok_or_else(ended)?;
            let verb = Verb::Kill { signal: signal as u32, to: Target::First };
            let output = self
                .runsc
                .command(&Globals::new(claim.bundle().root()), &verb, claim.id())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .output()
                .map_err(|source| RunscError::NotRunnable { path: self.runsc.path.clone(), source })?;
            if output.status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let reason = String::from_utf8_lossy(&output.stderr).trim().chars().take(200).collect();
                return Err(RunscError::Runsc { name: self.name.clone(), reason });
            }
            thread::sleep(SIGNAL_RETRY);
        }
    }
}
