//! One process that containerd knows: a container's first, or an exec.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use containerd_shim_protos::types::task::Status;
use tokio::sync::watch;

use crate::{
    error::{Error, Result},
    io::{Copies, Stdio},
    reaper::Exit,
};

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Made, not started.
    Created,
    /// Begun.
    Running,
    /// Its container is paused.
    Paused,
    /// Ended, and told so.
    Stopped,
}

/// A process. What it is does not change; where it is does.
#[derive(Debug)]
pub(super) struct Process {
    /// Empty for a container's first.
    pub(super) exec_id: String,
    pub(super) stdio: Stdio,
    state: Mutex<State>,
    exit: watch::Sender<Option<Exit>>,
    /// Held by whoever starts, ends or deletes it: one at a time.
    pub(super) order: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    pid: u32,
    /// Inside the sandbox; for signals to an exec.
    inner: Option<i32>,
    copies: Option<Arc<Copies>>,
    input_closed: bool,
}

impl Process {
    pub(super) fn new(exec_id: String, stdio: Stdio) -> Self {
        let state = State { phase: Phase::Created, pid: 0, inner: None, copies: None, input_closed: false };
        Self {
            exec_id,
            stdio,
            state: Mutex::new(state),
            exit: watch::Sender::new(None),
            order: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Goes to a phase, unless it has ended.
    pub(super) fn enter(&self, phase: Phase) {
        let mut state = self.state();
        if state.phase != Phase::Stopped {
            state.phase = phase;
        }
    }

    /// The host process behind it; 0 before there is one.
    pub(super) fn pid(&self) -> u32 {
        self.state().pid
    }

    /// Its number inside the sandbox.
    pub(super) fn inner_pid(&self) -> Option<i32> {
        self.state().inner
    }

    pub(super) fn born(&self, pid: u32, inner: Option<i32>) {
        let mut state = self.state();
        (state.pid, state.inner) = (pid, inner);
    }

    /// Its streams. A request to close its input that came before them counts.
    pub(super) fn connect(&self, copies: Copies) {
        let mut state = self.state();
        if state.input_closed {
            copies.close_input();
        }
        state.copies = Some(Arc::new(copies));
    }

    pub(super) fn copies(&self) -> Option<Arc<Copies>> {
        self.state().copies.clone()
    }

    /// Ends its streams.
    pub(super) fn disconnect(&self) -> Option<Arc<Copies>> {
        self.state().copies.take()
    }

    pub(super) fn close_input(&self) {
        let mut state = self.state();
        state.input_closed = true;
        if let Some(copies) = &state.copies {
            copies.close_input();
        }
    }

    pub(super) fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        let size = |value: u32| {
            u16::try_from(value).map_err(|_| Error::Invalid(format!("a terminal cannot have {value} lines")))
        };
        let (columns, rows) = (size(columns)?, size(rows)?);
        let copies =
            self.copies().ok_or_else(|| Error::FailedPrecondition("it has no terminal yet".into()))?;
        copies.resize(columns, rows)
    }

    /// Notes its end. Everybody who waits is told.
    pub(super) fn stop(&self, exit: Exit) {
        self.state().phase = Phase::Stopped;
        self.exit.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(exit);
            first
        });
    }

    /// How it ended, once that was told.
    pub(super) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub(super) async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        // The sender is ours, so there is a value before there is an error.
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.unwrap_or(Exit { status: 255, at: std::time::SystemTime::now() })
    }

    pub(super) fn status(&self) -> Status {
        match self.phase() {
            Phase::Created => Status::CREATED,
            Phase::Running => Status::RUNNING,
            Phase::Paused => Status::PAUSED,
            Phase::Stopped => Status::STOPPED,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
