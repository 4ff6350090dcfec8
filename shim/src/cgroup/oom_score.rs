//! Whom the kernel kills first when the host's memory runs out: `/proc/<pid>/oom_score_adj` (proc_pid_oom_score_adj(5)).

use std::{fs, io, os::unix::process::parent_id};

/// The kernel's greatest.
const MOST: i32 = 1000;

/// Gives `pid` one more than our parent has, which is containerd when it calls `start`: a shim is to go before containerd, and after
/// the sandboxes. Best effort: whoever calls it logs the failure and goes on.
///
/// # Errors
/// EACCES where it were less than `pid` may have without CAP_SYS_RESOURCE.
pub fn raise(pid: u32) -> io::Result<()> {
    let parents = fs::read_to_string(format!("/proc/{}/oom_score_adj", parent_id()))?;
    let parents: i32 = parents.trim().parse().map_err(io::Error::other)?;
    fs::write(format!("/proc/{pid}/oom_score_adj"), parents.saturating_add(1).min(MOST).to_string())
}
