//! What is set on a runsc process between fork and exec: `prctl(2)`, `close_range(2)`, and its cgroup.
#![allow(unsafe_code)] // Command::pre_exec, and system calls that nix does not wrap

use std::{fs::File, io, os::unix::process::CommandExt, process::Command};

use nix::{
    errno::Errno,
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Pid, getpid, getppid, write},
};

// linux/capability.h; libc has no names for these.
const CAP_NET_ADMIN: libc::c_ulong = 12;
const CAP_NET_RAW: libc::c_ulong = 13;

/// Makes `command` end with the thread that spawns it, inherit no descriptor above 2, and have no right to change the
/// network: with `--network=host` the sentry's process keeps whatever network capability runsc had.
pub(super) fn confine(command: &mut Command) {
    let supervisor = getpid();
    // SAFETY: `between_fork_and_exec` makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || between_fork_and_exec(supervisor)) };
}

/// Moves `command` into the cgroup whose `cgroup.procs` is `door`. When the kernel refuses, it runs where we do: whoever
/// needs to know looks where it is.
pub(crate) fn start_in_group(command: &mut Command, door: File) {
    let enter = move || {
        // 0 is whoever writes (cgroups(7)).
        let _ = write(&door, b"0");
        Ok(())
    };
    // SAFETY: `enter` makes one system call; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(enter) };
}

fn between_fork_and_exec(supervisor: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // The supervisor may have died before the request above: then no signal will come.
    if getppid() != supervisor {
        return Err(Errno::ESRCH.into());
    }
    for capability in [CAP_NET_ADMIN, CAP_NET_RAW] {
        // SAFETY: takes integers only.
        Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
    }
    // SAFETY: takes integers only. Marking instead of closing keeps the pipe by which std reports a failed exec.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    Ok(())
}
