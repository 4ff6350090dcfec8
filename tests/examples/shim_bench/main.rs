//! What a containerd shim costs: containerd's own, gVisor's own and ours, without and with a network identity, in turn, in one run.
//!
//! `make bench-shim`, or `cargo run --release -p lattice-tests --example shim_bench -- ROUNDS PODS`
//!
//! Each has a containerd of its own, of one release. A round takes each step of each in turn, so that what else the machine does falls on
//! all alike. At the end each has so many pods at rest.

mod rest;
mod subject;

use std::{collections::BTreeMap, env, time::Instant};

use lattice_tests::{
    Lab,
    containerd::{Options, Pod, Release},
};
use subject::Subject;

const STEPS: [&str; 7] = [
    "pod: run",
    "container: create",
    "container: start",
    "exec",
    "container: stop",
    "pod: stop, remove",
    "**all but exec**",
];
const ALL: usize = 6;

fn main() {
    let argument = |n, default| env::args().nth(n).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (rounds, pods): (usize, usize) = (argument(1, 20), argument(2, 3));
    let release = ["trixie", "sid"].into_iter().find_map(Release::named).unwrap_or_else(Release::installed);
    let mut lab = Lab::start();
    let subjects = Subject::all(&release, &mut lab);
    let mut times: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds {
        for (which, subject) in subjects.iter().enumerate() {
            let taken = life(subject);
            // The first round fills caches.
            for (step, time) in taken.into_iter().enumerate().filter(|_| round > 0) {
                times.entry((step, which)).or_default().push(time);
            }
        }
    }
    let (major, minor) = release.version();
    println!("containerd {major}.{minor}, {rounds} rounds, p50 / p99 in ms\n");
    row("", subjects.iter().map(|subject| subject.name.to_owned()));
    row("---", subjects.iter().map(|_| "---".to_owned()));
    for (step, name) in STEPS.into_iter().enumerate() {
        row(
            name,
            (0..subjects.len()).map(|which| quantiles(&mut times.entry((step, which)).or_default().clone())),
        );
    }
    row(
        "**all but exec**, of gVisor's shim",
        (0..subjects.len()).map(|which| ratio(&subjects, &times, which)),
    );
    let costs: Vec<_> = subjects.iter().map(|subject| rest::costs(&subject.daemon, pods)).collect();
    for line in 0..rest::LINES.len() {
        row(rest::LINES[line], costs.iter().map(|cost| cost[line].clone()));
    }
    println!("\nat rest: {pods} pods");
}

/// One pod with one container from beginning to end; the steps in ms.
fn life(subject: &Subject) -> [f64; STEPS.len()] {
    let mut last = Instant::now();
    let mut lap = || {
        let taken = last.elapsed().as_secs_f64() * 1e3;
        last = Instant::now();
        taken
    };
    let pod = Pod::run(&subject.daemon);
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
    let remove = lap();
    [run, create, start, exec, stop, remove, run + create + start + stop + remove]
}

/// How the median of the whole compares to that of gVisor's own shim.
fn ratio(subjects: &[Subject], times: &BTreeMap<(usize, usize), Vec<f64>>, which: usize) -> String {
    let median = |which| at(&mut times.get(&(ALL, which)).cloned().unwrap_or_default(), 0.5);
    let own = subjects.iter().position(|subject| subject.name == subject::GVISORS);
    own.map_or("–".to_owned(), |own| format!("{:.2}", median(which) / median(own)))
}

fn quantiles(values: &mut [f64]) -> String {
    format!("{:.0} / {:.0}", at(values, 0.5), at(values, 0.99))
}

fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(((values.len().max(1) - 1) as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

fn row(name: &str, cells: impl IntoIterator<Item = String>) {
    println!("| {name} | {} |", cells.into_iter().collect::<Vec<_>>().join(" | "));
}
