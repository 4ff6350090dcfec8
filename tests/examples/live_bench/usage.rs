//! What processes have used, by `/proc` (proc(5)): processor time, in milliseconds.

use std::{collections::BTreeMap, fs};

/// Kinds of processes, in the order in which they are shown.
pub(crate) const KINDS: [&str; 5] = ["lattice", "latticed", "nats-server", "agents (runsc)", "the bench"];

/// Processor time of each of [`KINDS`], of the processes below this one that run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage(pub(crate) [f64; KINDS.len()]);

impl Usage {
    /// Until now.
    pub(crate) fn now() -> Self {
        let all = processes();
        let own = std::process::id();
        let mut usage = Self::default();
        for (&pid, process) in &all {
            if !is_below(&all, pid, own) {
                continue;
            }
            let kind = match process.name.as_str() {
                _ if pid == own => 4,
                "lattice" => 0,
                "latticed" => 1,
                "nats-server" => 2,
                // Commands of the bench itself are over by the time it asks.
                _ => 3,
            };
            usage.0[kind] += process.cpu_ms;
        }
        usage
    }

    /// What came since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self(std::array::from_fn(|kind| self.0[kind] - before.0[kind]))
    }
}

struct Process {
    name: String,
    parent: u32,
    cpu_ms: f64,
}

fn processes() -> BTreeMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, read(pid)?))).collect()
}

fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // A tick of `stat` is 10 ms. What the scheduler counts is exact, but by thread: of those that have ended it is gone.
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let ran = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    Some(Process { name: name.into(), parent: fields.get(1)?.parse().ok()?, cpu_ms: ran.sum::<f64>() / 1e6 })
}

fn is_below(all: &BTreeMap<u32, Process>, mut pid: u32, top: u32) -> bool {
    while pid != top {
        match all.get(&pid) {
            Some(process) if process.parent != 0 => pid = process.parent,
            _ => return false,
        }
    }
    true
}
