//! A process's standard streams: between what containerd names and what runsc is given.
//!
//! ```text
//!              FIFO ───────────────────────────────► stdin      the FIFO itself; we only hold a writer of it
//! containerd   FIFO ◄── splice(2) ── pipe ◄────────── stdout, stderr
//!              file ◄── append ───── pipe ◄────────── stdout, stderr
//!              logger's 3, 4 ─────── pipe ◄────────── stdout, stderr      nothing of ours in between
//!              FIFOs ◄── read, write ── pty master ◄─ terminal
//! ```
//!
//! Output takes a pipe of its own, not the FIFO, so that a process left behind by the first one, which has our pipe open for
//! ever, cannot keep containerd from seeing the end. Neither side of a FIFO is ever waited for in `open(2)`, and while we hold the other
//! side as well, containerd may go and come back: nothing is lost, and the process notices nothing but a wait.

mod copy;
mod fifo;
mod target;

use std::{
    fs::OpenOptions,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{self, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};

use self::{fifo::Output, target::Target};
use crate::{
    error::{Error, Result},
    reaper::Reaper,
};

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
pub struct Copies {
    /// Our writer of the FIFO that the standard input comes from.
    input: Mutex<Option<OwnedFd>>,
    outputs: sync::Mutex<JoinSet<()>>,
    ending: watch::Sender<bool>,
}

/// Where runsc sends the master side of a terminal (`--console-socket`).
#[derive(Debug)]
pub struct ConsoleSocket {}

impl Stdio {
    /// Opens everything for a process without a terminal, and starts the copies. `id` and `namespace` are the container's, for
    /// loggers. Inside a runtime.
    ///
    /// # Errors
    /// Names the stream and the path.
    pub async fn open(&self, _namespace: &str, _id: &str, _reaper: &Reaper) -> Result<(ChildEnds, Copies)> {
        let mut copies = Copies::none();
        let stdin = match Target::parse_input(&self.stdin)? {
            None => null("stdin")?,
            Some(path) => copies.hold_input(&path)?,
        };
        let stdout = copies.add_output("stdout", &self.stdout)?;
        let stderr = copies.add_output("stderr", &self.stderr)?;
        Ok((ChildEnds { stdin, stdout, stderr }, copies))
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
    fn none() -> Self {
        Self { input: Mutex::new(None), outputs: sync::Mutex::default(), ending: watch::Sender::new(false) }
    }

    /// Opens the FIFO at `path`: what the process reads, while we hold a writer.
    fn hold_input(&mut self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("open stdin {}", path.display());
        let input = fifo::open_input(path).map_err(Error::io(what()))?;
        fifo::make_blocking(&input.reader).map_err(Error::io(what()))?;
        *self.input.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(input.hold);
        Ok(input.reader)
    }

    /// Starts the copy to what `name` names; gives the end that the process writes to.
    fn add_output(&mut self, stream: &'static str, name: &str) -> Result<OwnedFd> {
        let Some(to) = open_output(stream, &Target::parse(stream, name)?)? else { return null(stream) };
        let (theirs, ours) =
            fifo::pipe_from_process().map_err(Error::io(format!("make a pipe for {stream}")))?;
        let (copy, name) = (copy::copy_output(ours, to, self.ending.subscribe()), name.to_owned());
        self.outputs.get_mut().spawn(async move { report(stream, &name, copy.await) });
        Ok(theirs)
    }

    /// Closes the process's standard input, after what was written to it has been delivered: it ends when containerd has
    /// closed its own side too.
    pub fn close_input(&self) {
        *self.input.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sets the terminal's size.
    ///
    /// # Errors
    /// Without a terminal.
    pub fn resize(&self, _columns: u16, _rows: u16) -> Result<()> {
        todo!()
    }

    /// Waits until all output was delivered, at most `limit`, then ends the copies. May be called again.
    ///
    /// Call it when the process has ended: output that nobody reads any more is not waited for.
    pub async fn drain(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.ending.send_replace(true);
        let mut outputs = self.outputs.lock().await;
        let all = async { while outputs.join_next().await.is_some() {} };
        if timeout_at(deadline, all).await.is_err() {
            tracing::warn!(seconds = limit.as_secs(), "output is held open after its process, and cut off");
        }
        outputs.shutdown().await;
        self.close_input();
    }
}

/// Where output for `target` is written, unless it is nowhere.
fn open_output(stream: &str, target: &Target) -> Result<Option<Output>> {
    let (path, opened) = match target {
        Target::Null => return Ok(None),
        Target::Existing(path) => (path, fifo::open_output(path)),
        Target::File(path) => (path, fifo::open_log(path)),
        Target::Logger(_) => return Err(Error::Unimplemented(format!("a logger for {stream}"))),
    };
    opened.map(Some).map_err(Error::io(format!("open {stream} {}", path.display())))
}

fn null(stream: &str) -> Result<OwnedFd> {
    let opened = OpenOptions::new().read(stream == "stdin").write(stream != "stdin").open("/dev/null");
    opened.map(Into::into).map_err(Error::io(format!("open /dev/null for {stream}")))
}

fn report(stream: &str, name: &str, result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            tracing::debug!(stream, name, "nobody reads this output any more");
        }
        Err(error) => tracing::warn!(stream, name, %error, "cannot write output; the rest is lost"),
    }
}

#[cfg(test)]
mod tests;
