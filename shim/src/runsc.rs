//! runsc's commands, run through the reaper with a bound on each.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::Pid;

use crate::{
    config::{Config, NetworkKind},
    error::Result,
    io::ChildEnds,
    reaper::{Awaited, Exit, Reaper},
};

/// The runsc of one pod.
#[derive(Debug, Clone)]
pub struct Runsc {}

/// Where a process's terminal or streams go.
#[derive(Debug)]
pub enum Streams<'a> {
    /// These.
    Ends(ChildEnds),
    /// The terminal's master to this socket.
    Console(&'a Path),
}

/// What `runsc state` says of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Created, not started.
    Created,
    /// Running.
    Running,
    /// Paused.
    Paused,
    /// Ended.
    Stopped,
}

impl Runsc {
    /// Finds runsc and its platform by `config`. `root` is its `--root`. Blocks for a moment when this runsc was never asked before.
    ///
    /// # Errors
    /// What is missing, and the remedy.
    pub fn new(_config: &Config, _network: NetworkKind, _root: PathBuf, _reaper: Reaper) -> Result<Self> {
        todo!()
    }

    /// The program, for [`crate::place::Record::runsc`].
    pub fn program(&self) -> &Path {
        todo!()
    }

    /// `runsc create`: gives the host process of the container's sandbox. `bundle` is ours; its `log.json` is runsc's.
    ///
    /// # Errors
    /// runsc's own reason. Nothing of the container is left.
    pub async fn create(&self, _id: &str, _bundle: &Path, _streams: Streams<'_>) -> Result<Pid> {
        todo!()
    }

    /// `runsc start`. A member container takes its streams here.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn start(&self, _id: &str, _bundle: &Path) -> Result<()> {
        todo!()
    }

    /// Waits for a member container's end: it has no host process of its own. `None` when the sandbox ended before it could be told.
    /// Call it right after [`Runsc::start`]; it needs no resident process.
    ///
    /// # Errors
    /// When neither the sandbox nor runsc answers.
    pub async fn wait(&self, _id: &str) -> Result<Option<Exit>> {
        todo!()
    }

    /// `runsc exec`: begins a process in a container. The awaited process ends when it does, with its status. Returns when the process
    /// runs; gives its pid inside the sandbox.
    ///
    /// # Errors
    /// runsc's own reason, such as a program that is not there.
    pub async fn exec(
        &self,
        _id: &str,
        _process: &oci_spec::runtime::Process,
        _dir: &Path,
        _streams: Streams<'_>,
    ) -> Result<(Awaited, i32)> {
        todo!()
    }

    /// `runsc kill`: to the first process, to process `pid` of the container, or to `all`.
    ///
    /// # Errors
    /// [`crate::error::Error::NotFound`] when there is nothing to signal.
    pub async fn kill(&self, _id: &str, _signal: u32, _pid: Option<i32>, _all: bool) -> Result<()> {
        todo!()
    }

    /// `runsc delete --force`; a container that is not there is fine.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn delete(&self, _id: &str) -> Result<()> {
        todo!()
    }

    /// The pids inside the sandbox of a container's processes.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn processes(&self, _id: &str) -> Result<Vec<i32>> {
        todo!()
    }

    /// `runsc pause`.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn pause(&self, _id: &str) -> Result<()> {
        todo!()
    }

    /// `runsc resume`.
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn resume(&self, _id: &str) -> Result<()> {
        todo!()
    }

    /// `runsc checkpoint` into `dir`.
    ///
    /// # Errors
    /// runsc's own reason; [`crate::error::Error::Unimplemented`] when this release cannot with this network.
    pub async fn checkpoint(&self, _id: &str, _dir: &Path, _leave_running: bool) -> Result<()> {
        todo!()
    }

    /// `runsc restore` in place of [`Runsc::start`].
    ///
    /// # Errors
    /// runsc's own reason.
    pub async fn restore(&self, _id: &str, _bundle: &Path, _image: &Path) -> Result<()> {
        todo!()
    }

    /// `runsc update`, where this release has it: then the sandbox knows its new limits too.
    ///
    /// # Errors
    /// runsc's own reason; [`crate::error::Error::Unimplemented`] without the command.
    pub async fn update(&self, _id: &str, _resources: &oci_spec::runtime::LinuxResources) -> Result<()> {
        todo!()
    }

    /// `runsc state`.
    ///
    /// # Errors
    /// [`crate::error::Error::NotFound`] for a container that is not there.
    pub async fn status(&self, _id: &str) -> Result<Status> {
        todo!()
    }
}

/// How long commands may take: loaded machines have needed 2 s.
pub const LIMIT: Duration = Duration::from_secs(30);
