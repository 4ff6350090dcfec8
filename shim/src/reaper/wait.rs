//! `waitpid(2)`, as nix cannot call it: nix loses the status of a process that a real-time signal ended.
#![allow(unsafe_code)]

use std::io;

use nix::unistd::Pid;

/// Takes the next child of the calling *thread* that has ended: its pid, and its status as a shell tells it. `None` when none has.
///
/// `__WNOTHREAD` leaves alone what other threads started and await by themselves.
///
/// # Errors
/// `EINTR`; never for want of children.
pub(super) fn next_ended() -> io::Result<Option<(Pid, u32)>> {
    let mut status: libc::c_int = 0;
    // SAFETY: the pointer is to a local variable of the type that the call writes.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WNOTHREAD) };
    match pid {
        0 => Ok(None),
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        },
        pid => Ok(Some((Pid::from_raw(pid), shell_status(status)))),
    }
}

/// Without `WUNTRACED` the kernel tells of no child that only stopped.
fn shell_status(status: libc::c_int) -> u32 {
    let status =
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    status.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        assert_eq!(shell_status(7 << 8), 7);
        assert_eq!(shell_status(255 << 8), 255);
        assert_eq!(shell_status(libc::SIGKILL), 137);
        assert_eq!(shell_status(libc::SIGSEGV | 0x80), 139, "with a core dump");
        assert_eq!(shell_status(34), 162, "a real-time signal");
    }
}
