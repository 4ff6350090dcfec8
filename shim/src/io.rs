//! A process's standard streams: between what containerd names and what runsc is given.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::error::Result;

/// What containerd asked for. Empty means none: `/dev/null`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    /// A FIFO.
    pub stdin: String,
    /// A FIFO (a path, or `fifo://`), a file (`file://`) or a logger (`binary://`).
    pub stdout: String,
    /// Likewise; unused with a terminal.
    pub stderr: String,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

/// The ends that the process is given.
#[derive(Debug)]
pub struct ChildEnds {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// The copies between a process and containerd. Dropping them ends them.
#[derive(Debug)]
pub struct Copies {}

/// Where runsc sends the master side of a terminal (`--console-socket`).
#[derive(Debug)]
pub struct ConsoleSocket {}

impl Stdio {
    /// Opens everything for a process without a terminal, and starts the copies. `id` and `namespace` are the container's, for loggers.
    ///
    /// # Errors
    /// Names the stream and the path.
    pub async fn open(&self, _namespace: &str, _id: &str) -> Result<(ChildEnds, Copies)> {
        todo!()
    }

    /// For a process with a terminal: the socket to give runsc. `dir` is private to us.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(&self, _dir: &Path) -> Result<ConsoleSocket> {
        todo!()
    }
}

impl ConsoleSocket {
    /// For `--console-socket`.
    pub fn path(&self) -> PathBuf {
        todo!()
    }

    /// Takes the terminal that runsc sends, and starts the copies.
    ///
    /// # Errors
    /// When none comes within `limit`, or it is no terminal.
    pub async fn accept(
        self,
        _stdio: &Stdio,
        _namespace: &str,
        _id: &str,
        _limit: Duration,
    ) -> Result<Copies> {
        todo!()
    }
}

impl Copies {
    /// Closes the process's standard input, after what was written to it has been delivered.
    pub fn close_input(&self) {
        todo!()
    }

    /// Sets the terminal's size.
    ///
    /// # Errors
    /// Without a terminal.
    pub fn resize(&self, _columns: u16, _rows: u16) -> Result<()> {
        todo!()
    }

    /// Waits until all output was delivered, at most `limit`, then ends the copies. May be called again.
    pub async fn drain(&self, _limit: Duration) {
        todo!()
    }
}
