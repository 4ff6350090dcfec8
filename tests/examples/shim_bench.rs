//! What a containerd shim costs: containerd's own, gVisor's own and ours, in turn, in one run.
//!
//! `make bench-shim`, or `cargo run --release -p lattice-tests --example shim_bench -- ROUNDS`
//!
//! Each runtime has a containerd of its own, of one release. A round takes each step of each runtime in turn, so that what else the machine
//! does falls on all alike.

use std::{
    collections::BTreeMap,
    env, fs, thread,
    time::{Duration, Instant},
};

use lattice_tests::containerd::{Daemon, Inside, Options, Pod, Release, Runtime};

const STEPS: [&str; 6] =
    ["pod: run", "container: create", "container: start", "exec", "container: stop", "pod: stop, remove"];

/// How long the shims' processor time at rest is watched.
const REST: Duration = Duration::from_secs(20);

/// Pods whose memory is measured.
const PODS: usize = 3;

fn main() {
    let rounds: usize = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    let release = ["trixie", "sid"].into_iter().find_map(Release::named).unwrap_or_else(Release::installed);
    let all = [Runtime::Runc, Runtime::Runsc, Runtime::Lattice];
    let (here, absent): (Vec<Runtime>, Vec<Runtime>) =
        all.into_iter().partition(|runtime| runtime.found().is_some());
    for runtime in absent {
        println!("not measured: {} is not here", runtime.shim());
    }
    let daemons: Vec<Daemon> = here.iter().map(|runtime| Daemon::of(release.clone(), *runtime)).collect();
    let mut times: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds {
        for (which, daemon) in daemons.iter().enumerate() {
            let taken = life(daemon);
            // The first round fills caches.
            for (step, time) in taken.into_iter().enumerate().filter(|_| round > 0) {
                times.entry((step, which)).or_default().push(time);
            }
        }
    }
    let (major, minor) = release.version();
    println!("containerd {major}.{minor}, {rounds} rounds, p50 / p99 in ms\n");
    row("", here.iter().map(|runtime| runtime.shim().to_owned()));
    row("---", here.iter().map(|_| "---".to_owned()));
    for (step, name) in STEPS.into_iter().enumerate() {
        let cell = |which| {
            let sorted = times.get_mut(&(step, which)).map(std::mem::take).unwrap_or_default();
            quantiles(sorted)
        };
        row(name, (0..here.len()).map(cell).collect::<Vec<_>>());
    }
    let costs: Vec<[String; 3]> = daemons.iter().map(at_rest).collect();
    for (line, name) in
        ["shim per pod: RSS / PSS", "all of a pod: PSS", "shim's CPU at rest"].into_iter().enumerate()
    {
        row(name, costs.iter().map(|cost| cost[line].clone()));
    }
}

/// One pod with one container from beginning to end; the steps in ms.
fn life(daemon: &Daemon) -> [f64; 6] {
    let mut last = Instant::now();
    let mut lap = || {
        let taken = last.elapsed().as_secs_f64() * 1e3;
        last = Instant::now();
        taken
    };
    let pod = Pod::run(daemon);
    let run = lap();
    let container = pod.create("bench", &Options::default());
    let create = lap();
    container.start().expect("StartContainer");
    let start = lap();
    container.exec(&["/bin/true"], 60).expect("ExecSync");
    let exec = lap();
    container.stop(0).expect("StopContainer");
    let stop = lap();
    pod.remove();
    [run, create, start, exec, stop, lap()]
}

/// Memory per pod with one container in it, and the shims' use of a processor while nothing happens.
fn at_rest(daemon: &Daemon) -> [String; 3] {
    let pods: Vec<Pod<'_>> = (0..PODS)
        .map(|_| {
            let pod = Pod::run(daemon);
            pod.start("bench", &Options::default());
            pod
        })
        .collect();
    thread::sleep(Duration::from_secs(2));
    let all: Vec<_> = daemon.inside.processes().into_iter().filter(|task| task.parent != 0).collect();
    let shims: Vec<u32> =
        all.iter().filter(|task| task.line.contains(daemon.runtime.shim())).map(|task| task.pid).collect();
    let sum = |pids: &[u32], field: &str| -> u64 {
        pids.iter().map(|pid| memory(&daemon.inside, *pid, field)).sum()
    };
    let pids: Vec<u32> = all.iter().map(|task| task.pid).collect();
    let each = |kilobytes: u64| kilobytes as f64 / 1024.0 / PODS as f64;
    let shim = format!("{:.1} / {:.1} MiB", each(sum(&shims, "Rss:")), each(sum(&shims, "Pss:")));
    let pod = format!("{:.1} MiB", each(sum(&pids, "Pss:")));
    let before: u64 = shims.iter().map(|pid| ticks(&daemon.inside, *pid)).sum();
    thread::sleep(REST);
    let used = shims.iter().map(|pid| ticks(&daemon.inside, *pid)).sum::<u64>() - before;
    // A tick is 10 ms.
    let cpu = format!("{:.2} %", used as f64 * 10.0 / REST.as_secs_f64() / 1e3 * 100.0 / PODS as f64);
    for pod in pods {
        pod.remove();
    }
    [shim, pod, cpu]
}

/// A field of `smaps_rollup`, in KiB.
fn memory(inside: &Inside, pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(inside.path(format!("/proc/{pid}/smaps_rollup"))).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Processor time in ticks: fields 14 and 15 of `stat`.
fn ticks(inside: &Inside, pid: u32) -> u64 {
    let text = fs::read_to_string(inside.path(format!("/proc/{pid}/stat"))).unwrap_or_default();
    let rest = text.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn quantiles(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    format!("{:.0} / {:.0}", at(0.5), at(0.99))
}

fn row(name: &str, cells: impl IntoIterator<Item = String>) {
    println!("| {name} | {} |", cells.into_iter().collect::<Vec<_>>().join(" | "));
}
