//! The agent's standard streams.
//!
//! gVisor writes to a regular file at offsets of its own: two streams sent to one file overwrite each other, and what
//! was in it before. So an inherited stream that is a regular file gets a pipe, and a thread of ours that appends.
//!
//! It also makes a pipe non-blocking, and leaves it so when it is killed. That is a property of the pipe's end, which we and
//! the shell that started us share: other programs there would meet `EAGAIN`. So it is set back.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd, BorrowedFd},
    process::{Command, Stdio},
    thread::{self, JoinHandle},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::{SigSet, Signal},
};

/// What the agent's streams are.
#[derive(Debug)]
pub struct AgentStdio {
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl AgentStdio {
    /// Ours.
    pub fn inherit() -> Self {
        Self { stdin: None, stdout: None, stderr: None }
    }

    /// Pipes, terminals or `/dev/null`, not regular files.
    pub fn new(stdin: impl Into<Stdio>, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        Self { stdin: Some(stdin.into()), stdout: Some(stdout.into()), stderr: Some(stderr.into()) }
    }

    /// `own_group`: the command will run in a process group of its own.
    pub(super) fn attach(self, command: &mut Command, own_group: bool) -> io::Result<Copies> {
        let mut copies = Copies::default();
        command.stdin(match self.stdin {
            Some(stdin) => stdin,
            // Reading a terminal from a background process group stops that group: the agent would hang.
            None if own_group && io::stdin().is_terminal() => typed()?,
            None => copies.lend(File::from(io::stdin().as_fd().try_clone_to_owned()?))?,
        });
        command.stdout(self.stdout.map_or_else(|| copies.stream(io::stdout().as_fd()), Ok)?);
        command.stderr(self.stderr.map_or_else(|| copies.stream(io::stderr().as_fd()), Ok)?);
        Ok(copies)
    }
}

/// A pipe with what is typed on our terminal. Its thread is not awaited: it waits for the next line until we end.
fn typed() -> io::Result<Stdio> {
    let (from_us, mut to_agent) = io::pipe()?;
    thread::Builder::new().name("agent-input".into()).spawn(move || {
        // When we are in the background ourselves a read then fails, which ends the input. It must not stop us.
        let _ = SigSet::from(Signal::SIGTTIN).thread_block();
        if let Err(error) = io::copy(&mut io::stdin().lock(), &mut to_agent) {
            tracing::debug!(%error, "the agent reads no more input");
        }
    })?;
    Ok(from_us.into())
}

/// Threads that append to regular files what the agent writes, and the streams that it was lent.
#[derive(Debug, Default)]
pub(super) struct Copies {
    threads: Vec<JoinHandle<()>>,
    lent: Vec<(File, OFlag)>,
}

impl Copies {
    fn stream(&mut self, ours: BorrowedFd<'_>) -> io::Result<Stdio> {
        let mut file = File::from(ours.try_clone_to_owned()?);
        if !file.metadata()?.is_file() {
            return self.lend(file);
        }
        let (mut from_agent, to_us) = io::pipe()?;
        self.threads.push(thread::Builder::new().name("agent-output".into()).spawn(move || {
            if let Err(error) = io::copy(&mut from_agent, &mut file) {
                tracing::warn!(%error, "the agent's output could not be written any more");
            }
        })?);
        Ok(to_us.into())
    }

    fn lend(&mut self, stream: File) -> io::Result<Stdio> {
        let flags = OFlag::from_bits_retain(fcntl(&stream, FcntlArg::F_GETFL)?);
        self.lent.push((stream.try_clone()?, flags));
        Ok(stream.into())
    }

    /// Waits until all output is written, and sets the lent streams back. The agent must have ended.
    pub(super) fn finish(&mut self) {
        for copy in self.threads.drain(..) {
            drop(copy.join());
        }
        for (stream, flags) in self.lent.drain(..) {
            let _ = fcntl(&stream, FcntlArg::F_SETFL(flags));
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.finish();
    }
}
