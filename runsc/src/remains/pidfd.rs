//! Killing processes by `pidfd_open(2)`, which names one process for good: a number may be another's a moment later.
#![allow(unsafe_code)] // system calls that nix does not wrap

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc::pid_t,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// A killed process ends as soon as the kernel has freed its memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// runsc's own command lines are below 1 KiB.
const MAX_CMDLINE: u64 = 64 << 10;

/// Kills every process one of whose arguments is exactly `argument`, and waits until all have ended.
pub(super) fn kill_all_with_argument(argument: &OsStr) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    // A process found may have started another one before it was killed.
    loop {
        let found = find(argument).map_err(|error| format!("/proc: {error}"))?;
        if found.is_empty() {
            return Ok(());
        }
        for (pid, process) in &found {
            kill(process).map_err(|error| format!("kill {pid}: {error}"))?;
        }
        for (pid, process) in &found {
            if !ended(process, deadline).map_err(|error| format!("await {pid}: {error}"))? {
                return Err(format!("process {pid} does not end"));
            }
        }
    }
}

/// Waits `grace` for process `pid` to end by itself, then kills it. `is_it` is asked once the number can no more become another's.
pub(super) fn end(pid: u32, is_it: impl FnOnce() -> bool, grace: Duration) -> Result<(), String> {
    let Ok(number) = pid_t::try_from(pid) else { return Ok(()) };
    let failed = |error: Errno| format!("end {pid}: {error}");
    let process = match open(number) {
        Ok(process) => process,
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !is_it() || ended(&process, Instant::now() + grace).map_err(failed)? {
        return Ok(());
    }
    kill(&process).map_err(failed)?;
    if ended(&process, Instant::now() + PATIENCE).map_err(failed)? {
        return Ok(());
    }
    Err(format!("process {pid} does not end"))
}

fn find(argument: &OsStr) -> io::Result<Vec<(pid_t, OwnedFd)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<pid_t>().ok()) else {
            continue;
        };
        // Opened before its arguments are read: what is killed is what was looked at.
        let Ok(process) = open(pid) else { continue };
        let mut cmdline = Vec::new();
        let read = File::open(entry.path().join("cmdline"))
            .and_then(|file| file.take(MAX_CMDLINE).read_to_end(&mut cmdline));
        let named = cmdline.split(|byte| *byte == 0).any(|arg| arg == argument.as_bytes());
        if read.is_ok() && named && !ended(&process, Instant::now())? {
            found.push((pid, process));
        }
    }
    Ok(found)
}

fn open(pid: pid_t) -> nix::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = fd.try_into().map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn kill(process: &OwnedFd) -> nix::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; a null siginfo is allowed and means what kill(2) would send.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, no_info, 0) };
    match Errno::result(sent) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error),
    }
}

fn ended(process: &OwnedFd, deadline: Instant) -> nix::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
