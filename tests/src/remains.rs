//! What a sandbox could leave behind on this machine.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{Host, process::patience};

/// How long the kernel may take to end what was killed, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Everything that still refers to `host`'s state directory: processes, mounts, files.
pub fn of(host: &Host) -> Vec<String> {
    let state = host.dir.join("run");
    let needle = state.display().to_string();
    let mut found = processes(&needle);
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains(&needle)).map(|line| format!("mount {line}")));
    for folder in ["sandboxes", "nodes"] {
        let entries = fs::read_dir(state.join(folder)).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| format!("state {}", entry.path().display())));
    }
    found
}

/// Processes whose command line or environment contains `needle`.
pub fn processes(needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let mentions = |file: &str| {
            fs::read(path.join(file)).is_ok_and(|text| String::from_utf8_lossy(&text).contains(needle))
        };
        if mentions("cmdline") || mentions("environ") {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            found.push(format!("process {} {}", entry.file_name().to_string_lossy(), name.trim()));
        }
    }
    found
}

/// Waits until nothing is left of `host`.
///
/// # Panics
/// When something stays.
pub fn assert_none(host: &Host) {
    let deadline = Instant::now() + patience(LIMIT);
    loop {
        let left = of(host);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}
