//! Loggers: programs of the operator's that read a process's output themselves.
//!
//! A logger finds standard output at descriptor 3, standard error at 4, and closes 5 when it is ready, as containerd's own
//! do (its `core/runtime/v2/README.md`, "Logging"). It ends when both have ended.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    pin::pin,
    process::{Command, Stdio},
    task::{Context, Waker},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::signal::{Signal, killpg},
    unistd::pipe2,
};
use tokio::{
    net::unix::pipe::Receiver,
    time::{Instant, timeout, timeout_at},
};

use super::{inherit, target::LoggerCommand};
use crate::{
    error::{Error, Result},
    reaper::{Awaited, Reaper},
};

/// How long one may take to get ready. containerd has no limit, but its client has.
const READY: Duration = Duration::from_secs(10);
/// How long one may live after SIGKILL: only the kernel's own work is left.
const KILLED: Duration = Duration::from_secs(2);

/// A running logger, killed when dropped.
#[derive(Debug)]
pub(super) struct Logger {
    process: Awaited,
}

impl Logger {
    /// Starts it on the reading ends of two pipes, and waits until it is ready.
    pub(super) async fn start(
        command: &LoggerCommand,
        namespace: &str,
        id: &str,
        reaper: &Reaper,
        outputs: [OwnedFd; 2],
    ) -> Result<Self> {
        let program = command.program.display();
        let failed = |error: io::Error| Error::io(format!("start the logger {program}"))(error);
        let (ready, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let logger = {
            let mut start = Command::new(&command.program);
            start
                .args(&command.arguments)
                .env_clear()
                .env("CONTAINER_ID", id)
                .env("CONTAINER_NAMESPACE", namespace)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0);
            let [stdout, stderr] = outputs;
            let process = inherit::spawn(start, [stdout, stderr, theirs], |start| reaper.spawn(start));
            Self { process: process.map_err(failed)? }
        };
        let ready = Receiver::from_owned_fd(ready).map_err(failed)?;
        match timeout(READY, answer(&ready)).await {
            Ok(Ok(false)) if command.must_answer => Err(failed(io::Error::other(
                "it closed descriptor 5 without a byte, which means that it failed",
            ))),
            Ok(answered) => answered.map(|_| logger).map_err(failed),
            Err(_) => Err(Error::Timeout {
                what: format!("waiting for the logger {program} to close descriptor 5"),
                seconds: READY.as_secs(),
            }),
        }
    }

    /// Waits until it has read everything and ended. One that does not is asked to end halfway to `deadline`, and then killed.
    pub(super) async fn finish(mut self, deadline: Instant) {
        let halfway = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        if timeout_at(halfway, self.process.exit()).await.is_ok() {
            return;
        }
        self.signal(Signal::SIGTERM);
        if timeout_at(deadline, self.process.exit()).await.is_ok() {
            return;
        }
        tracing::warn!(pid = self.process.pid().as_raw(), "a logger does not end, and is killed");
        self.signal(Signal::SIGKILL);
        let _ = timeout(KILLED, self.process.exit()).await;
    }

    /// To the logger and what it started. Its number is its own until the reaper waits for it, which it does on this thread.
    fn signal(&mut self, signal: Signal) {
        let has_ended = pin!(self.process.exit()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        if !has_ended
            && let Err(error) = killpg(self.process.pid(), signal)
            && error != Errno::ESRCH
        {
            tracing::warn!(%error, "cannot signal a logger");
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Whether a byte came before the end.
async fn answer(ready: &Receiver) -> io::Result<bool> {
    loop {
        ready.readable().await?;
        match ready.try_read(&mut [0]) {
            Ok(read) => return Ok(read > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
