//! Giving a child descriptors by number: `dup2(2)` between fork and exec, and `close_range(2)` for all others.
#![allow(unsafe_code)] // Command::pre_exec, and system calls that nix does not wrap

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use nix::errno::Errno;

/// The first number after the standard streams.
const FIRST: i32 = 3;

/// Starts `command` with `descriptors` as 3, 4 and so on, and no others after the standard streams. Ours are closed when this returns.
pub(super) fn spawn<const N: usize, T>(
    mut command: Command,
    descriptors: [OwnedFd; N],
    start: impl FnOnce(&mut Command) -> io::Result<T>,
) -> io::Result<T> {
    let end = FIRST + i32::try_from(N).map_err(io::Error::other)?;
    // Until the child has them, nothing else may get these numbers: not our descriptors, nor the one by which std reports that
    // exec failed.
    let mut taken = vec![File::open("/dev/null")?];
    while taken.last().is_some_and(|last| last.as_raw_fd() < end) {
        taken.push(File::open("/dev/null")?);
    }
    let first_other = libc::c_uint::try_from(end).map_err(io::Error::other)?;
    let mut sources = Vec::with_capacity(N);
    for fd in &descriptors {
        sources.push(fd.try_clone()?);
    }
    let give = move || {
        for (number, source) in (FIRST..).zip(&sources) {
            // SAFETY: takes integers only. The child's own copy of whatever `number` was is closed; no Rust value there is used
            // again before exec.
            Errno::result(unsafe { libc::dup2(source.as_raw_fd(), number) })?;
        }
        // SAFETY: takes integers only. Marking instead of closing keeps the pipe by which std reports a failed exec.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_close_range, first_other, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
        })?;
        Ok(())
    };
    // SAFETY: `give` makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(give) };
    start(&mut command)
}
