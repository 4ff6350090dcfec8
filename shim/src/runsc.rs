//! runsc's commands, run through the reaper with a bound on each.
//!
//! What the running sandbox itself can answer it is asked over its control socket; the rest, and what it does not understand, goes
//! through the command. Only a command changes runsc's own state files.

mod about;
mod call;
mod control;
mod exec;
mod words;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU64},
    thread,
    time::{Duration, SystemTime},
};

use lattice_runsc::{Globals, Network, Target, Verb, answer, cgroup2};
use nix::{sys::signal::Signal, unistd::Pid};
use tokio::time::timeout;

pub use lattice_runsc::answer::Status;

use crate::{
    annotations::Role,
    cgroup::Usage,
    config::{Config, NetworkKind},
    error::{Error, Result},
    io::ChildEnds,
    reaper::{Awaited, Exit, Reaper},
};
use about::{About, input, pid_in, set_streams};
use control::{Delivery, Failure};
use words::{exit_status, further_flags, is_usage, nobody_to_signal, sandbox_has_ended};

/// How long commands may take: loaded machines have needed 2 s.
pub const LIMIT: Duration = Duration::from_secs(30);
const KILL: u32 = Signal::SIGKILL as u32;
const TERM: u32 = Signal::SIGTERM as u32;

/// The runsc of one pod. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Runsc {
    runsc: lattice_runsc::Runsc,
    globals: Globals,
    reaper: Reaper,
    limit: Duration,
    number: Arc<AtomicU64>,
    /// Of member containers that were created: runsc takes their streams at their start.
    streams: Arc<Mutex<HashMap<String, ChildEnds>>>,
}

/// Where a process's terminal or streams go.
#[derive(Debug)]
pub enum Streams<'a> {
    /// These.
    Ends(ChildEnds),
    /// The terminal's master to this socket.
    Console(&'a Path),
}

impl Runsc {
    /// Finds runsc and its platform by `config`. `root` is its `--root`. Blocks for a moment when this runsc was never asked before.
    ///
    /// # Errors
    /// What is missing, and the remedy.
    pub fn new(config: &Config, network: NetworkKind, root: PathBuf, reaper: Reaper) -> Result<Self> {
        let (path, platform) = (config.runsc.clone(), config.platform);
        // On a thread of its own: the reaper takes the children of this one.
        let found = thread::spawn(move || lattice_runsc::Runsc::find(path.as_deref(), platform)).join();
        let runsc = found
            .map_err(|_| Error::Invalid("looking for runsc panicked".into()))?
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let network = match network {
            NetworkKind::Lattice | NetworkKind::Plain => Network::Host,
            NetworkKind::None => Network::None,
        };
        let globals = Globals { network, further: further_flags(&config.runsc_flags)?, ..Globals::new(root) };
        Ok(Self { runsc, globals, reaper, limit: LIMIT, number: Arc::default(), streams: Arc::default() })
    }

    /// With another bound than [`LIMIT`] on each command.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The program, for [`crate::place::Record::runsc`].
    pub fn program(&self) -> &Path {
        &self.runsc.path
    }

    /// `runsc create`: gives the host process of the container's sandbox. `bundle` is ours; its `log.json` is runsc's. With `group`, a
    /// cgroup of version 2, all that it starts is in that.
    ///
    /// # Errors
    /// runsc's own reason. Nothing of the container is left.
    pub async fn create(
        &self,
        id: &str,
        bundle: &Path,
        streams: Streams<'_>,
        group: Option<&Path>,
    ) -> Result<Pid> {
        self.check(id)?;
        if self.exists(id) {
            return Err(Error::AlreadyExists(id.to_owned()));
        }
        let created = self.try_create(id, bundle, streams, group).await;
        if created.is_err() {
            self.forget(id).await;
        }
        created
    }

    async fn try_create(
        &self,
        id: &str,
        bundle: &Path,
        streams: Streams<'_>,
        group: Option<&Path>,
    ) -> Result<Pid> {
        let about = About::read(bundle)?;
        let (globals, log) = self.logging_into(bundle, &about)?;
        let pid_file = bundle.join("init.pid");
        let console = match &streams {
            Streams::Console(socket) => Some(*socket),
            Streams::Ends(_) => None,
        };
        let verb = Verb::Create { bundle, pid_file: &pid_file, console };
        let mut command = self.runsc.command(&globals, &verb, id);
        if let Some(group) = group
            && let Err(reason) = cgroup2::start_in(&mut command, group)
        {
            tracing::warn!(id, reason, "the sandbox is not started in a cgroup of its own");
        }
        match streams {
            Streams::Ends(ends) if about.role() == Role::Member => {
                set_streams(&mut command, None);
                self.streams().insert(id.to_owned(), ends);
            }
            Streams::Ends(ends) => set_streams(&mut command, Some(ends)),
            Streams::Console(_) => set_streams(&mut command, None),
        }
        self.do_logged("create", id, command, &log).await?;
        pid_in(&pid_file).ok_or_else(|| Error::Runsc {
            verb: "create",
            reason: format!("it wrote no process id to {}", pid_file.display()),
        })
    }

    /// `runsc start`. A member container takes its streams here.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn start(&self, id: &str, bundle: &Path) -> Result<()> {
        self.begin_container(id, bundle, Verb::Start).await
    }

    /// `runsc restore` in place of [`Runsc::start`].
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn restore(&self, id: &str, bundle: &Path, image: &Path) -> Result<()> {
        self.begin_container(id, bundle, Verb::Restore { bundle, image }).await
    }

    async fn begin_container(&self, id: &str, bundle: &Path, verb: Verb<'_>) -> Result<()> {
        self.check(id)?;
        let (globals, log) = self.logging_into(bundle, &About::read(bundle)?)?;
        let mut command = self.runsc.command(&globals, &verb, id);
        let ends = self.streams().remove(id);
        set_streams(&mut command, ends);
        self.do_logged(verb.name(), id, command, &log).await
    }

    /// Waits for a member container's end: it has no host process of its own. `None` when the sandbox ended before it could be told.
    /// Call it right after [`Runsc::start`]; it needs no resident process.
    ///
    /// # Errors
    /// When neither the sandbox nor runsc answers.
    pub async fn wait(&self, id: &str) -> Result<Option<Exit>> {
        self.check(id)?;
        let exit = |status| Some(Exit { status, at: SystemTime::now() });
        match self.connect(id).await {
            Ok(control) => match control.wait(id).await {
                Ok(status) => return Ok(exit(exit_status(status))),
                Err(Failure::Ended) => return Ok(None),
                Err(Failure::Refused(reason)) => {
                    return Err(Error::Runsc { verb: "wait", reason: answer::one_line(&reason) });
                }
                Err(Failure::NotUnderstood) => {}
            },
            Err(error) => tracing::debug!(id, %error, "runsc is asked instead of the sandbox"),
        }
        let command = self.runsc.command(&self.globals, &Verb::Wait, id);
        let output = call::run(&self.reaper, command, None).await.map_err(self.not_runnable())?;
        match output {
            Some(output) if output.status == 0 => {
                answer::exit_status(&output.stdout).map(exit).map_err(self.garbled("wait"))
            }
            Some(output) => match self.refusal("wait", id, None, &output.stderr) {
                Error::Runsc { reason, .. } if sandbox_has_ended(&reason) => Ok(None),
                error => Err(error),
            },
            None => Err(self.took_too_long("wait", id)),
        }
    }

    /// `runsc exec`: begins a process in a container. The awaited process ends when it does, with its status. Returns when the process
    /// runs; gives its pid inside the sandbox. What is written to `dir`, which is private to us, is removed before it returns.
    ///
    /// # Errors
    /// runsc's own reason, such as a program that is not there.
    pub async fn exec(
        &self,
        id: &str,
        process: &oci_spec::runtime::Process,
        dir: &Path,
        streams: Streams<'_>,
    ) -> Result<(Awaited, i32)> {
        self.check(id)?;
        self.begin(id, process, dir, streams).await
    }

    /// `runsc kill`: to the first process, to process `pid` of the container, or to `all`.
    ///
    /// # Errors
    /// [`crate::error::Error::NotFound`] when there is nothing to signal.
    pub async fn kill(&self, id: &str, signal: u32, pid: Option<i32>, all: bool) -> Result<()> {
        self.check(id)?;
        let (to, delivery) = match pid {
            _ if all => (Target::All, Delivery::All),
            Some(pid) => (Target::Process(pid), Delivery::One),
            None => (Target::First, Delivery::One),
        };
        let asked = match self.connect(id).await {
            Ok(control) => {
                let pid = pid.filter(|_| !all).unwrap_or(0);
                let answer = timeout(self.limit, control.signal(id, signal, pid, delivery)).await;
                answer.map_err(|_| self.took_too_long("kill", id))?
            }
            Err(_) => Err(Failure::NotUnderstood),
        };
        let reason = match asked {
            // One that ended before it could answer did so of this signal, or has nobody left to signal.
            Ok(()) | Err(Failure::Ended) => return Ok(()),
            Err(Failure::Refused(reason)) => answer::one_line(&reason),
            Err(Failure::NotUnderstood) => match self.ask(Verb::Kill { signal, to }, id).await {
                Err(Error::Runsc { reason, .. }) => reason,
                done => return done.map(drop),
            },
        };
        if nobody_to_signal(&reason) {
            let ends = matches!(signal, KILL | TERM) && pid.is_none();
            if ends && self.is_root(id) && self.status(id).await? == Status::Created {
                // It has no process yet but the sandbox's own.
                return self.kill_sandbox().await;
            }
            let whom = pid.map_or_else(|| id.to_owned(), |pid| format!("process {pid} of {id}"));
            return Err(Error::NotFound(whom));
        }
        Err(Error::Runsc { verb: "kill", reason })
    }

    /// `runsc delete --force`; a container that is not there is fine.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.check(id)?;
        self.streams().remove(id);
        match self.ask(Verb::Delete, id).await {
            Err(Error::NotFound(_)) => Ok(()),
            done => done.map(drop),
        }
    }

    /// The pids inside the sandbox of a container's processes.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn processes(&self, id: &str) -> Result<Vec<i32>> {
        self.check(id)?;
        if let Ok(control) = self.connect(id).await
            && let Ok(Ok(pids)) = timeout(self.limit, control.processes(id)).await
        {
            return Ok(pids);
        }
        let text = self.ask(Verb::Processes, id).await?;
        answer::pids(&text).map_err(self.garbled("ps"))
    }

    /// What the sandbox counts for a container.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn usage(&self, id: &str) -> Result<Usage> {
        Usage::from_events(&self.ask(Verb::Events, id).await?)
    }

    /// `runsc pause`.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn pause(&self, id: &str) -> Result<()> {
        self.ask(Verb::Pause, id).await.map(drop)
    }

    /// `runsc resume`.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn resume(&self, id: &str) -> Result<()> {
        self.ask(Verb::Resume, id).await.map(drop)
    }

    /// `runsc checkpoint` into `dir`.
    ///
    /// # Errors
    /// runsc's own reason; [`crate::error::Error::Unimplemented`] when this release cannot with this network.
    pub async fn checkpoint(&self, id: &str, dir: &Path, leave_running: bool) -> Result<()> {
        match self.ask(Verb::Checkpoint { image: dir, leave_running }, id).await {
            Err(Error::Runsc { reason, .. }) if reason.contains("not supported") => {
                Err(Error::Unimplemented(format!("checkpoint by runsc {} ({reason})", self.runsc.version)))
            }
            done => done.map(drop),
        }
    }

    /// `runsc update`, where this release has it: then the sandbox knows its new limits too.
    ///
    /// # Errors
    /// runsc's own reason; [`crate::error::Error::Unimplemented`] without the command.
    pub async fn update(&self, id: &str, resources: &oci_spec::runtime::LinuxResources) -> Result<()> {
        self.check(id)?;
        let mut command = self.runsc.command(&self.globals, &Verb::Update, id);
        let input = serde_json::to_vec(resources).map_err(io::Error::from).and_then(|text| input(&text));
        command.stdin(input.map_err(Error::io("hand over the new limits"))?);
        let output = self.run("update", id, command).await?;
        match output.status {
            0 => Ok(()),
            _ if is_usage(&output.stderr) => {
                Err(Error::Unimplemented(format!("update by runsc {}", self.runsc.version)))
            }
            _ => Err(self.refusal("update", id, None, &output.stderr)),
        }
    }

    /// `runsc state`.
    ///
    /// # Errors
    /// [`crate::error::Error::NotFound`] for a container that is not there.
    pub async fn status(&self, id: &str) -> Result<Status> {
        let text = self.ask(Verb::State, id).await?;
        answer::status(&text).map_err(self.garbled("state"))
    }
}
