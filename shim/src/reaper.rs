//! Every child that ends is waited for here: those that we start, and those of runsc's that become ours because we are
//! the subreaper (`prctl(2)`, PR_SET_CHILD_SUBREAPER).

use std::{io, process::Command, time::SystemTime};

use nix::unistd::Pid;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// As a shell tells it: 128 + n for signal n.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Reaper {}

/// A process whose end is awaited.
#[derive(Debug)]
pub struct Awaited {}

impl Reaper {
    /// Becomes the subreaper and begins to wait. Once per process, inside a runtime.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start() -> io::Result<Self> {
        todo!()
    }

    /// Starts `command`; its end is never missed. Must not be given piped streams that std would own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, _command: &mut Command) -> io::Result<Awaited> {
        todo!()
    }

    /// Awaits a process that is or becomes our child, such as the sandbox that `runsc create` left. Its end counts even when it
    /// came before this call, within the last minute.
    pub fn adopt(&self, _pid: Pid) -> Awaited {
        todo!()
    }
}

impl Awaited {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        todo!()
    }

    /// Resolves at its end. Cancel-safe; may be called again.
    pub async fn exit(&mut self) -> Exit {
        todo!()
    }
}
