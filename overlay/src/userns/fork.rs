//! `fork(2)`, for a process of one thread: only a child is ever a member of a new PID namespace.
#![allow(unsafe_code)] // fork is unsafe where there are other threads

use std::{fs, io};

use nix::unistd::{ForkResult, Pid};

/// Which of the two this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The one that called; with its child.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Makes a copy of this process.
///
/// # Errors
/// `EAGAIN` and `ENOMEM`, and when the process has more than one thread, since the copy would wait for ever for their locks.
pub fn fork() -> io::Result<Forked> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process of several threads cannot be copied"));
    }
    // SAFETY: this is the only thread, so no lock is held, and nothing is half written.
    Ok(match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Forked::Parent(child),
        ForkResult::Child => Forked::Child,
    })
}
