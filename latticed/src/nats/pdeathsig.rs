//! `PR_SET_PDEATHSIG` (`prctl(2)`): a child that the kernel kills when its parent dies, however the parent dies.

#![allow(unsafe_code)] // a hook between fork and exec exists only as an unsafe API

use std::io;

use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal},
    unistd::{getpid, getppid},
};
use tokio::process::Command;

/// Makes the child of `command` die with the thread that spawns it. Spawn from a thread that lives as long as the child
/// should: here the main thread, on which the runtime runs.
pub(super) fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = getpid();
    let hook = move || -> io::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the call above; then nobody will signal us.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec, the hook only makes the system calls prctl(2) and getppid(2), both async-signal-safe.
    // It captures a number, and neither allocates nor locks: the errors that it makes hold an errno.
    unsafe { command.pre_exec(hook) }
}
