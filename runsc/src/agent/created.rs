//! A sandbox that is being made while phase one goes on, and its start.

use std::{
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use lattice_bootstrap::Ready;

use super::{Agent, AgentStdio, START_LIMIT, Signaller, Timings, child::Child, gate::Gate};
use crate::{
    AgentSpec, Cgroups, Globals, Runsc, RunscError, Verb, Writable,
    cgroup::{self, Fence},
    remains::Claim,
    validate,
};

/// A sandbox that is being made, and in which nothing of the agent's runs. Dropping it ends it and removes everything of it.
///
/// `runsc run` writes its pid file when the sandbox stands, before it begins the agent's program. That file is a FIFO, and opening one to
/// write waits for who reads: so `runsc` waits there until [`Created::start`] opens it.
#[derive(Debug)]
#[must_use]
pub struct Created {
    agent: Agent,
    fence: Result<Fence, String>,
    netns: PathBuf,
    began: Instant,
}

impl Runsc {
    /// Begins to make the sandbox of `spec` in the network namespace at `netns`, which may still be empty: gVisor looks at its links and
    /// routes when the agent is started. Blocks for some milliseconds; `runsc` goes on beside us.
    ///
    /// # Errors
    /// As [`Runsc::start`], but for what `runsc` itself finds: that [`Created::start`] tells.
    pub fn create(
        &self,
        netns: &Path,
        spec: &AgentSpec,
        state_dir: &Path,
        stdio: AgentStdio,
    ) -> Result<Created, RunscError> {
        let began = Instant::now();
        validate(spec)?;
        cgroup::check(spec)?;
        let claim = Claim::take(state_dir, &spec.name)?;
        claim.bundle().write(claim.id(), netns, spec)?;
        let gate = Gate::make(&claim.bundle().pid_file())?;
        let bundle = began.elapsed();

        let mut command = self.run_command(spec, &claim);
        let fence = Fence::make(claim.id(), claim.bundle(), spec)
            .and_then(|fence| fence.surround(&mut command).map(|()| fence));
        let copies =
            stdio.attach(&mut command, !spec.terminal).map_err(|source| self.not_runnable(source))?;
        if !spec.terminal {
            // A terminal's ^C must reach us alone: runsc would die of it before the agent is told.
            command.process_group(0);
        }
        let child = Child::spawn(command, &spec.name, move || gate.cancel())
            .map_err(|source| self.not_runnable(source))?;
        let claim = Arc::new(claim);
        let agent = Agent {
            timings: Timings { bundle, create: Duration::ZERO },
            sandbox_pid: 0,
            calls: Ok(()),
            handle: Signaller {
                name: spec.name.clone(),
                runsc: self.clone(),
                child: Arc::new(child),
                claim: Arc::downgrade(&claim),
            },
            claim,
            copies,
        };
        Ok(Created { agent, fence, netns: netns.to_owned(), began })
    }

    fn run_command(&self, spec: &AgentSpec, claim: &Claim) -> Command {
        let bundle = claim.bundle();
        let mut further = vec![match spec.rootfs_writable {
            Writable::Overlay => "overlay2=root:memory".to_owned(),
            Writable::ReadOnly => "overlay2=none".to_owned(),
        }];
        if spec.cpus.is_some() {
            further.push("cpu-num-from-quota".into());
        }
        let cgroups = if cgroup::wanted(spec) { Cgroups::Direct } else { Cgroups::Ignored };
        let globals = Globals { log: Some(bundle.log()), cgroups, further, ..Globals::new(bundle.root()) };
        let verb = Verb::Run { bundle: bundle.path(), pid_file: &bundle.pid_file() };
        self.command(&globals, &verb, claim.id())
    }

    fn not_runnable(&self, source: io::Error) -> RunscError {
        RunscError::NotRunnable { path: self.path.clone(), source }
    }
}

impl Created {
    /// Starts the agent: `ready` says that the policy of its namespace is in force. Returns when the sandbox stands.
    ///
    /// # Errors
    /// [`RunscError::Runsc`] with runsc's own reason; [`RunscError::Invalid`] when `ready` is of another namespace. Nothing is left
    /// behind then.
    pub fn start(self, ready: &Ready) -> Result<Agent, RunscError> {
        let Self { mut agent, fence, netns, began } = self;
        if ready.netns() != netns {
            let text = format!("agent {} was made for another network namespace", agent.handle.name);
            return Err(RunscError::Invalid(text));
        }
        let fence = fence.and_then(|fence| fence.police(ready).map(|()| fence));
        let pid_file = agent.claim.bundle().pid_file();
        let gate = Gate::at(&pid_file);
        let open = gate.open().map_err(RunscError::io("read", &pid_file))?;
        if agent.handle.child.has_ended() {
            // Nobody will write any more.
            gate.cancel();
        }
        match open.wait(START_LIMIT).map_err(RunscError::io("read", &pid_file))? {
            Some(pid) => agent.sandbox_pid = pid,
            None if agent.handle.child.has_ended() => {
                return Err(agent.failure("it ended before the agent ran"));
            }
            None => {
                return Err(RunscError::Timeout { name: agent.handle.name.clone(), limit: START_LIMIT });
            }
        }
        agent.timings.create = began.elapsed().saturating_sub(agent.timings.bundle);
        agent.calls = fence.and_then(|fence| fence.holds(agent.sandbox_pid));
        if agent.calls.is_ok() {
            ready.tell_calls_policed();
        }
        Ok(agent)
    }
}
