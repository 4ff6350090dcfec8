//! What `start` hands to the server: the listening socket as standard input, the pipe to say "ready" as standard output. From then
//! on the standard streams are `/dev/null`, and the session is the server's own.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
};

use nix::{
    sys::socket::{getsockopt, sockopt::AcceptConn},
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid},
};

use crate::{
    error::{Error, Result},
    launch::READY,
};

const OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// The kernel's bound (proc_pid_oom_score_adj(5)).
const MAX_SCORE: i32 = 1000;

/// What was handed over.
pub(super) struct Inherited {
    pub(super) listener: UnixListener,
}

/// Says once how the beginning went.
pub(super) struct Ready(File);

/// Takes it.
pub(super) fn take() -> Result<(Inherited, Ready)> {
    let listener = socket_of(&io::stdin()).ok_or_else(|| {
        Error::Invalid(
            "this is how \"start\" runs the shim: without the listening socket there is nothing to do".into(),
        )
    })?;
    let ready = io::stdout().as_fd().try_clone_to_owned().map_err(Error::io("keep standard output"))?;
    let ready = Ready(File::from(ready));
    match detach() {
        Ok(()) => Ok((Inherited { listener: UnixListener::from(listener) }, ready)),
        Err(error) => ready.failed(Error::io("open /dev/null")(error)),
    }
}

fn socket_of(stream: &impl AsFd) -> Option<OwnedFd> {
    let socket = stream.as_fd().try_clone_to_owned().ok()?;
    getsockopt(&socket, AcceptConn).is_ok_and(|listens| listens).then_some(socket)
}

fn detach() -> io::Result<()> {
    // It fails for the leader of a group, which has been told to run this way by hand.
    let _ = setsid();
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

/// One above containerd's, which we inherit: before containerd, the kernel ends a shim.
pub(super) fn raise_oom_score() {
    let raised = fs::read_to_string(OOM_SCORE).and_then(|score| {
        let score: i32 = score.trim().parse().map_err(io::Error::other)?;
        fs::write(OOM_SCORE, (score + 1).min(MAX_SCORE).to_string())
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "{OOM_SCORE} cannot be raised");
    }
}

impl Ready {
    /// We serve.
    pub(super) fn done(mut self) {
        // `start` may have been killed; containerd will ask again.
        let _ = self.0.write_all(READY);
    }

    /// We do not, and this is why.
    pub(super) fn failed<T>(mut self, error: Error) -> Result<T> {
        let _ = self.0.write_all(error.to_string().as_bytes());
        Err(error)
    }
}
