//! What can go wrong in phase two, in words for the person who typed the command.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::answer;

/// Why an agent could not be checked, started, signalled or awaited.
#[derive(Debug, thiserror::Error)]
pub enum RunscError {
    /// No runtime on this machine.
    #[error("runsc is not on PATH: `apt-get install runsc`, or name one with --runsc")]
    NotFound,
    /// The runtime that was named cannot be run.
    #[error("cannot run {}: {source}; `apt-get install runsc`, or name another with --runsc", path.display())]
    NotRunnable {
        /// The program tried.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program that does not answer as runsc does.
    #[error("{} is not runsc: `--version` answered {answer:?}", path.display())]
    NotRunsc {
        /// The program tried.
        path: PathBuf,
        /// The beginning of what it printed.
        answer: String,
    },
    /// The platform asked for is not in this runsc.
    #[error("runsc {version} has no platform {platform}: use one of {}", available.join(", "))]
    NoPlatform {
        /// What was asked for.
        platform: String,
        /// Which runsc.
        version: String,
        /// What it has.
        available: Vec<String>,
    },
    /// A spec that cannot be run, found before anything was made.
    #[error("{0}")]
    Invalid(String),
    /// A live sandbox of that name exists under the same state directory.
    #[error("an agent named {0} is already running here: stop it or choose another --name")]
    NameTaken(String),
    /// Limits were asked for that this machine cannot enforce.
    #[error(
        "cannot limit {what}: no writable {what} cgroup controller under /sys/fs/cgroup; mount it or drop the limit"
    )]
    NoCgroup {
        /// The controller.
        what: &'static str,
    },
    /// A file operation of ours failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// runsc refused or died before the agent's program ran.
    #[error("runsc could not run agent {name}: {reason}")]
    Runsc {
        /// The agent.
        name: String,
        /// The last error in runsc's own log.
        reason: String,
    },
    /// runsc did not make the sandbox in time.
    #[error("runsc did not start agent {name} within {} s: try --platform=ptrace", limit.as_secs())]
    Timeout {
        /// The agent.
        name: String,
        /// How long we waited.
        limit: Duration,
    },
    /// The agent has ended, so it takes no signal.
    #[error("agent {0} has ended")]
    Ended(String),
    /// Something of a sandbox could not be removed.
    #[error("could not remove what is left of agent {name}: {reason}; `lattice doctor --fix` tries again")]
    Remains {
        /// The agent.
        name: String,
        /// What stays.
        reason: String,
    },
}

impl RunscError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// One entry of runsc's log holds at most a command line and an error.
const MAX_LOG: u64 = 1 << 20;

/// The last error in the log at `path`.
pub(crate) fn last_error_in_log(path: &Path) -> Option<String> {
    let mut log = Vec::new();
    File::open(path).ok()?.take(MAX_LOG).read_to_end(&mut log).ok()?;
    answer::last_error(&log)
}
