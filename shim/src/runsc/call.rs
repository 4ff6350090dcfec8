//! One call of runsc: a process group of its own, a bound in time and on what it may print.

use std::{
    future::Future,
    io,
    os::unix::process::CommandExt as _,
    pin::pin,
    process::Command,
    task::{Context, Poll, Waker},
    time::Duration,
};

use nix::sys::signal::{Signal, killpg};
use tokio::{net::unix::pipe, time::timeout};

use crate::reaper::{Awaited, Exit, Reaper};

/// A list of the processes of a full container is some 100 KiB.
const MAX_OUTPUT: usize = 1 << 20;
/// A reason is one line.
const MAX_ERRORS: usize = 64 << 10;
/// A killed process ends as soon as the kernel has freed its memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// A started process with all that it starts. Dropping it kills them, unless it has ended.
#[derive(Debug)]
pub(super) struct Group(Option<Awaited>);

/// What a call ended with.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) status: u32,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Group {
    pub(super) fn spawn(reaper: &Reaper, mut command: Command) -> io::Result<Self> {
        reaper.spawn(command.process_group(0)).map(|process| Self(Some(process)))
    }

    /// Waits for the end of the process; cancel-safe.
    pub(super) async fn exit(&mut self) -> Exit {
        match &mut self.0 {
            Some(process) => process.exit().await,
            None => std::future::pending().await,
        }
    }

    /// Its status, or `None` when it took longer than `limit` and all of it was killed.
    pub(super) async fn status(mut self, limit: Duration) -> Option<u32> {
        let exit = timeout(limit, self.exit()).await;
        if exit.is_err() {
            self.kill();
            let _ = timeout(PATIENCE, self.exit()).await;
        }
        exit.ok().map(|exit| exit.status)
    }

    /// Lets it go on.
    pub(super) fn release(mut self) -> Option<Awaited> {
        self.0.take()
    }

    /// Only while it is not known to have ended: its number may be another group's then.
    fn kill(&mut self) {
        let Some(process) = &mut self.0 else { return };
        let pid = process.pid();
        let ended = pin!(process.exit()).poll(&mut Context::from_waker(Waker::noop()));
        if ended == Poll::Pending {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command` and gives what it printed; `None` when it took longer than `limit`.
pub(super) async fn run(
    reaper: &Reaper,
    mut command: Command,
    limit: Option<Duration>,
) -> io::Result<Option<Output>> {
    let (mut stdout, to_stdout) = Capture::new(MAX_OUTPUT)?;
    let (mut stderr, to_stderr) = Capture::new(MAX_ERRORS)?;
    command.stdout(to_stdout.into_blocking_fd()?).stderr(to_stderr.into_blocking_fd()?);
    let group = Group::spawn(reaper, command)?;
    let ended = async {
        tokio::select! {
            status = group.status(limit.unwrap_or(Duration::MAX)) => status,
            () = stdout.fill() => None,
            () = stderr.fill() => None,
        }
    };
    let Some(status) = ended.await else { return Ok(None) };
    // A process that it left may hold the pipes: what is in them by now is all.
    stdout.take_rest();
    stderr.take_rest();
    Ok(Some(Output { status, stdout: stdout.text, stderr: stderr.text }))
}

/// The beginning of a stream. What is beyond is read and dropped: the writer must not wait for us.
struct Capture {
    pipe: pipe::Receiver,
    text: Vec<u8>,
    limit: usize,
}

impl Capture {
    fn new(limit: usize) -> io::Result<(Self, pipe::Sender)> {
        let (to, pipe) = pipe::pipe()?;
        Ok((Self { pipe, text: Vec::new(), limit }, to))
    }

    /// Never resolves.
    async fn fill(&mut self) {
        while self.pipe.readable().await.is_ok() && self.take_rest() {}
        std::future::pending().await
    }

    /// Takes what is there; whether more may come.
    fn take_rest(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.pipe.try_read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => {
                    let room = self.limit - self.text.len();
                    self.text.extend_from_slice(&chunk[..n.min(room)]);
                }
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}
