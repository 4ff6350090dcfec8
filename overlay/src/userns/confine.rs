//! How a process is started with no right, for good, and nothing of its parent's: `capabilities(7)`, `prctl(2)`, `close_range(2)`, `signal(7)`.
#![allow(unsafe_code)] // system calls that nix does not wrap

use std::{io, os::unix::process::CommandExt as _, process::Command};

use nix::{
    errno::Errno,
    sys::{prctl, signal::SigSet},
};

/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`.
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    /// 0 is the caller.
    pid: i32,
}

/// `struct __user_cap_data_struct`; version 3 takes two, for 64 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Takes every capability from the calling thread, from all it will execute and from what it starts, and keeps it from gaining any by set-user-ID
/// programs or file capabilities (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// The kernel's: nothing of it may be left out.
pub fn drop_privileges() -> io::Result<()> {
    prctl::set_no_new_privs()?;
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    for capability in 0..64 as libc::c_ulong {
        // SAFETY: takes integers only.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            // This kernel has no capability of that number, and so none above.
            Err(Errno::EINVAL) => break,
            // Without CAP_SETPCAP the bounding set stays. It bounds what only exec could give, and that gives nothing any more.
            Err(Errno::EPERM) => break,
            done => done?,
        };
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [Sets::default(); 2];
    // SAFETY: both are laid out as the kernel's, and outlive the call; the kernel writes to the header alone, and to it only where it does not
    // know the version.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    Errno::result(done)?;
    Ok(())
}

/// Has `command` begin with no signal blocked: what its parent blocks it would block as well, and hear of no wish to end.
pub fn hear_all_signals(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec one system call is made, and nothing is allocated.
    unsafe { command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) }
}

/// Keeps what is executed from now on from inheriting any descriptor but the standard streams.
///
/// # Errors
/// The kernel's.
pub fn keep_only_standard_streams() -> io::Result<()> {
    // SAFETY: takes integers only, and closes nothing.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_hears_signals_that_its_parent_blocks() {
        let blocked = std::thread::spawn(|| {
            SigSet::all().thread_block().unwrap();
            let mut grep = Command::new("grep");
            let out = hear_all_signals(grep.args(["SigBlk", "/proc/self/status"])).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        });
        assert_eq!(blocked.join().unwrap(), "SigBlk:\t0000000000000000\n");
    }

    /// Needs root, to have something to lose.
    #[test]
    fn nothing_is_left_to_the_thread_that_gives_up() {
        let sets = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let of_interest = |line: &&str| line.starts_with("Cap") || line.starts_with("NoNewPrivs");
            status.lines().filter(of_interest).map(str::to_owned).collect::<Vec<_>>()
        };
        let (before, after) = std::thread::spawn(move || {
            let before = sets();
            drop_privileges().unwrap();
            (before, sets())
        })
        .join()
        .unwrap();
        assert!(before.iter().any(|line| line.starts_with("CapEff") && !line.ends_with("0000000000000000")));
        assert_eq!(after.len(), 6, "{after:?}");
        for line in &after {
            let wanted = if line.starts_with("Cap") { "0000000000000000" } else { "1" };
            assert!(line.ends_with(wanted), "{line}");
        }
    }
}
