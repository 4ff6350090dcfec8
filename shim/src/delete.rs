//! `delete`: cleans up after a shim that is gone, however it went. Never fails for want of something to clean.

/// When process `pid` began, in clock ticks since boot (`proc_pid_stat(5)`, field 22); 0 when it is gone.
pub fn start_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, field 2, may hold anything but ends with the last parenthesis.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}
