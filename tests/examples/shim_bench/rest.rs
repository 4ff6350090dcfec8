//! What pods cost while nothing happens.

use std::{fs, thread, time::Duration};

use lattice_tests::containerd::{Daemon, Inside, Options, Pod};

/// How long the shims are watched: each peer's heartbeat is in it.
const REST: Duration = Duration::from_secs(30);

/// How long a start has to come to rest: its threads for blocking work end after 10 s without any, and what they did is counted no more.
const SETTLE: Duration = Duration::from_secs(15);

pub(crate) const LINES: [&str; 6] = [
    "shim: resident, MiB a pod",
    "shim: its share (PSS), MiB a pod",
    "shim: its own (private), MiB a pod",
    "all of a pod: PSS, MiB",
    "shim: processor at rest, a pod",
    "shim: wakeups a second, a pod",
];

/// Of each pod with one container in it. "shim" is every process but gVisor's kernel, its gofers and the containers' own: gVisor's shim
/// leaves a `runsc wait` for each container.
pub(crate) fn costs(daemon: &Daemon, count: usize) -> [String; LINES.len()] {
    let pods: Vec<Pod<'_>> = (0..count)
        .map(|_| {
            let pod = Pod::run(daemon);
            pod.start("bench", &Options::default());
            pod
        })
        .collect();
    thread::sleep(SETTLE);
    let all: Vec<_> = daemon.inside.processes().into_iter().filter(|task| task.parent != 0).collect();
    let is_shim = |line: &str| {
        let waits = line.contains("runsc") && line.split(' ').any(|word| word == "wait");
        line.contains(daemon.runtime.shim()) || waits
    };
    let shims: Vec<u32> = all.iter().filter(|task| is_shim(&task.line)).map(|task| task.pid).collect();
    let pids: Vec<u32> = all.iter().map(|task| task.pid).collect();
    let each = |pids: &[u32], fields: &[&str]| {
        let sum: u64 = pids.iter().map(|pid| memory(&daemon.inside, *pid, fields)).sum();
        format!("{:.1}", sum as f64 / 1024.0 / count as f64)
    };
    let sum = |of: fn(&Inside, u32) -> u64| shims.iter().map(|pid| of(&daemon.inside, *pid)).sum::<u64>();
    let (ticks_before, wakeups_before) = (sum(ticks), sum(wakeups));
    thread::sleep(REST);
    let per = 1.0 / REST.as_secs_f64() / count as f64;
    // A tick is 10 ms, which is 1 % of a second.
    let cpu = sum(ticks).saturating_sub(ticks_before) as f64 * per;
    let wakeups = sum(wakeups).saturating_sub(wakeups_before) as f64 * per;
    let costs = [
        each(&shims, &["Rss:"]),
        each(&shims, &["Pss:"]),
        each(&shims, &["Private_Clean:", "Private_Dirty:"]),
        each(&pids, &["Pss:"]),
        format!("{cpu:.3} %"),
        format!("{wakeups:.2}"),
    ];
    for pod in pods {
        pod.remove();
    }
    costs
}

/// The sum of fields of `smaps_rollup`, in KiB.
fn memory(inside: &Inside, pid: u32, fields: &[&str]) -> u64 {
    let text = fs::read_to_string(inside.path(format!("/proc/{pid}/smaps_rollup"))).unwrap_or_default();
    let lines = text.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// Processor time in ticks: fields 14 and 15 of `stat`.
fn ticks(inside: &Inside, pid: u32) -> u64 {
    let text = fs::read_to_string(inside.path(format!("/proc/{pid}/stat"))).unwrap_or_default();
    let rest = text.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// How often its threads have waited for something, and went on: `voluntary_ctxt_switches` of each.
fn wakeups(inside: &Inside, pid: u32) -> u64 {
    let threads = fs::read_dir(inside.path(format!("/proc/{pid}/task"))).into_iter().flatten().flatten();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let count = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:").map(str::trim));
        line.and_then(|number| number.parse::<u64>().ok())
    };
    status.filter_map(count).sum()
}
