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
mod inherit;
mod logger;
mod scm;
mod target;
mod terminal;
mod tty;

use std::{
    fs::OpenOptions,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{
    net::unix::pipe::Receiver,
    sync::{self, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use self::{
    fifo::Output,
    logger::Logger,
    target::{LoggerCommand, Target},
    terminal::Socket,
    tty::Tty,
};
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

/// The copies between a process and containerd, and its logger. Dropping them ends them.
#[derive(Debug)]
pub struct Copies {
    /// Our writer of the FIFO that the standard input comes from.
    input: Mutex<Option<OwnedFd>>,
    outputs: sync::Mutex<JoinSet<()>>,
    ending: watch::Sender<bool>,
    terminal: Option<Weak<Tty>>,
    logger: sync::Mutex<Option<Logger>>,
}

/// Where runsc sends the master side of a terminal (`--console-socket`). Removed when dropped.
#[derive(Debug)]
pub struct ConsoleSocket(Socket);

impl Stdio {
    /// Opens everything for a process without a terminal, and starts the copies. `id` and `namespace` are the container's, for
    /// loggers, which `reaper` starts. On the reaper's thread.
    ///
    /// # Errors
    /// Names the stream and the path.
    pub async fn open(&self, namespace: &str, id: &str, reaper: &Reaper) -> Result<(ChildEnds, Copies)> {
        let mut copies = Copies::none();
        let stdin = match copies.hold_input(&self.stdin)? {
            None => null("stdin")?,
            Some(fifo) => {
                fifo::make_blocking(&fifo).map_err(Error::io(format!("open stdin {}", self.stdin)))?;
                fifo
            }
        };
        let stdout = Target::parse("stdout", &self.stdout)?;
        if let Target::Logger(command) = &stdout {
            let [(from_stdout, stdout), (from_stderr, mut stderr)] = [pipe()?, pipe()?];
            if !self.stderr.is_empty() && self.stderr != self.stdout {
                stderr =
                    copies.add_output("stderr", &self.stderr, &Target::parse("stderr", &self.stderr)?)?;
            }
            copies.start_logger(command, namespace, id, reaper, [from_stdout, from_stderr]).await?;
            return Ok((ChildEnds { stdin, stdout, stderr }, copies));
        }
        let stdout = copies.add_output("stdout", &self.stdout, &stdout)?;
        let stderr = copies.add_output("stderr", &self.stderr, &Target::parse("stderr", &self.stderr)?)?;
        Ok((ChildEnds { stdin, stdout, stderr }, copies))
    }

    /// For a process with a terminal: the socket to give runsc. `dir` is private to us. Inside a runtime.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(&self, dir: &Path) -> Result<ConsoleSocket> {
        let what = format!("make a socket for the terminal in {}", dir.display());
        Socket::listen(dir).map(ConsoleSocket).map_err(Error::io(what))
    }
}

impl ConsoleSocket {
    /// For `--console-socket`.
    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Takes the terminal that runsc sends, and starts the copies. May be dropped while it waits.
    ///
    /// # Errors
    /// When none comes within `limit`, or it is no terminal; as [`Stdio::open`] otherwise.
    pub async fn accept(
        self,
        stdio: &Stdio,
        namespace: &str,
        id: &str,
        reaper: &Reaper,
        limit: Duration,
    ) -> Result<Copies> {
        let what = "receive the terminal from runsc";
        let late = Error::Timeout { what: format!("waiting to {what}"), seconds: limit.as_secs() };
        let tty = timeout(limit, self.0.accept()).await.map_err(|_| late)?.map_err(Error::io(what))?;
        drop(self);
        let mut copies = Copies::none();
        let input = copies.hold_input(&stdio.stdin)?;
        let input =
            input.map(Receiver::from_owned_fd).transpose().map_err(Error::io("read the standard input"))?;
        let output = match Target::parse("stdout", &stdio.stdout)? {
            Target::Logger(command) => {
                let (theirs, ours) =
                    fifo::pipe_to_process().map_err(Error::io("make a pipe for the logger"))?;
                let (nothing, _) = pipe()?;
                copies.start_logger(&command, namespace, id, reaper, [theirs, nothing]).await?;
                Some(Output::Logger(ours))
            }
            target => open_output("stdout", &target)?,
        };
        copies.add_terminal(tty, input, output, &stdio.stdout);
        Ok(copies)
    }
}

impl Copies {
    fn none() -> Self {
        Self {
            input: Mutex::default(),
            outputs: sync::Mutex::default(),
            ending: watch::Sender::new(false),
            terminal: None,
            logger: sync::Mutex::default(),
        }
    }

    /// Opens the FIFO of that name, if there is one: its reading end, which does not block, while we hold a writer.
    fn hold_input(&mut self, name: &str) -> Result<Option<OwnedFd>> {
        let Some(path) = Target::parse_input(name)? else { return Ok(None) };
        let input = fifo::open_input(&path).map_err(Error::io(format!("open stdin {}", path.display())))?;
        *self.input.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(input.hold);
        Ok(Some(input.reader))
    }

    /// Starts the copy to `target`, called `name`; gives the end that the process writes to.
    fn add_output(&mut self, stream: &'static str, name: &str, target: &Target) -> Result<OwnedFd> {
        let Some(to) = open_output(stream, target)? else { return null(stream) };
        let (theirs, ours) =
            fifo::pipe_from_process().map_err(Error::io(format!("make a pipe for {stream}")))?;
        let (copy, name) = (copy::copy_output(ours, to, self.ending.subscribe()), name.to_owned());
        self.outputs.get_mut().spawn(async move { report(stream, &name, copy.await) });
        Ok(theirs)
    }

    fn add_terminal(&mut self, tty: Tty, input: Option<Receiver>, output: Option<Output>, name: &str) {
        let tty = Arc::new(tty);
        self.terminal = Some(Arc::downgrade(&tty));
        let (copy, name) = (terminal::copy(tty, input, output, self.ending.subscribe()), name.to_owned());
        self.outputs.get_mut().spawn(async move { report("the terminal", &name, copy.await) });
    }

    async fn start_logger(
        &mut self,
        command: &LoggerCommand,
        namespace: &str,
        id: &str,
        reaper: &Reaper,
        outputs: [OwnedFd; 2],
    ) -> Result<()> {
        *self.logger.get_mut() = Some(Logger::start(command, namespace, id, reaper, outputs).await?);
        Ok(())
    }

    /// Closes the process's standard input, after what was written to it has been delivered: it ends when containerd has
    /// closed its own side too. A terminal then hangs up.
    pub fn close_input(&self) {
        *self.input.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sets the terminal's size, in characters. One that has ended has no size, and that is no error.
    ///
    /// # Errors
    /// Without a terminal.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let Some(terminal) = &self.terminal else {
            return Err(Error::FailedPrecondition("the process has no terminal".into()));
        };
        let Some(tty) = terminal.upgrade() else { return Ok(()) };
        tty.resize(columns, rows).map_err(Error::io(format!("resize the terminal to {columns}x{rows}")))
    }

    /// Waits until all output was delivered and the logger has ended, at most `limit`, then ends the copies and the logger. May be
    /// called again.
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
        if let Some(logger) = self.logger.lock().await.take() {
            logger.finish(deadline).await;
        }
    }
}

/// Where output for `target` is written, unless it is nowhere.
fn open_output(stream: &str, target: &Target) -> Result<Option<Output>> {
    let (path, opened) = match target {
        Target::Null => return Ok(None),
        Target::Existing(path) => (path, fifo::open_output(path)),
        Target::File(path) => (path, fifo::open_log(path)),
        Target::Logger(command) => {
            return Err(Error::Invalid(format!(
                "{stream}: the logger {} takes both outputs: name it for stdout too",
                command.program.display()
            )));
        }
    };
    opened.map(Some).map_err(Error::io(format!("open {stream} {}", path.display())))
}

/// The reading end, and the other.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).map_err(|errno| Error::io("make a pipe for the logger")(errno.into()))
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
