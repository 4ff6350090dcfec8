//! From the command's start to its end: signals go to it, its exit code is kept, orphans are reaped, and none outlives it.

use std::{
    fs, io,
    os::fd::AsFd as _,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid},
};

use super::{
    channel::{Channel, Order},
    letters::{Delivery, Letters},
};

/// A killed process that is not gone by then hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(2);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The command, with this exit code; 128+n by a signal.
    Code(u8),
    /// The other end of the channel; the command may still run.
    Alone,
}

/// Waits for the end of `command`, to which `deliver` gives signals. SIGCHLD must be blocked.
pub(super) fn until_the_end(
    command: &Child,
    channel: &Channel,
    deliver: &dyn Fn(Pid, Signal) -> io::Result<Delivery>,
) -> io::Result<Ended> {
    let command = Pid::from_raw(i32::try_from(command.id()).map_err(io::Error::other)?);
    let mut deaths = SigSet::empty();
    deaths.add(Signal::SIGCHLD);
    let deaths = SignalFd::with_flags(&deaths, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut letters = Letters::default();
    loop {
        // One signal stands for many deaths, and may have come before.
        while deaths.read_signal()?.is_some() {}
        if let Some(code) = reap(command, &mut letters)? {
            return Ok(Ended::Code(code));
        }
        // Until it is reaped, the number is its own.
        let timeout = letters.send(|signal| deliver(command, signal));
        let mut ready = [&deaths.as_fd(), &channel.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
        match poll(&mut ready, timeout) {
            Err(Errno::EINTR) => continue,
            done => done.map(drop)?,
        }
        if !ready[1].any().unwrap_or(true) {
            continue;
        }
        match channel.receive()? {
            None => return Ok(Ended::Alone),
            Some((Order::Signal(number), _)) => {
                if let Ok(signal) = Signal::try_from(number) {
                    letters.add(signal);
                }
            }
            Some(_) => {}
        }
    }
}

/// Reaps all that ended; the exit code of `command`, if it is among them.
fn reap(command: Pid, letters: &mut Letters) -> io::Result<Option<u8>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(WaitStatus::Exited(pid, status)) if pid == command => code = Some(status.to_le_bytes()[0]),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => code = Some(of_signal(signal)),
            Ok(WaitStatus::Exited(pid, status)) => letters.carrier_ended(pid, status == 0),
            Ok(WaitStatus::Signaled(pid, ..)) => letters.carrier_ended(pid, false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The exit code that stands for the end by a signal.
pub(super) fn of_signal(signal: Signal) -> u8 {
    128 + (signal as i32).to_le_bytes()[0]
}

/// Kills every process that this one has started or adopted, until there is none. Those of another user cannot be.
pub(super) fn end_the_rest() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
        }
        // What these leave behind is adopted, and found in the next round.
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) if Instant::now() > deadline => return,
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(2)),
            _ => {}
        }
    }
}

/// By the parent that each process names (`proc_pid_stat(5)`): not every kernel lists children.
fn children() -> Vec<Pid> {
    let own = getpid().to_string();
    let is_child = |pid: &Pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before it may hold anything, also this parenthesis.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent == Some(own.as_str())
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    pids.filter(is_child).collect()
}
