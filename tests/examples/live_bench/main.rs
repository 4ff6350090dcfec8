//! How long until a policy of the control plane is in force in every running sandbox.
//!
//! `cargo build --release --bins && cargo run --release -p lattice-tests --example live_bench -- 100 20`
//!
//! Starts so many sandboxes (200 at most), a few at a time, then adds and removes a policy for all of them, round after round. A
//! sandbox's time runs from before `lattice policy add` is started to the log line that its enforcer has the new policy. The
//! baseline is the time until that command itself has ended.

use std::{
    thread,
    time::{Duration, Instant},
};

use lattice_audit::Timestamp;
use lattice_tests::{Host, Lab, Process, agent};

const LIMIT: Duration = Duration::from_secs(120);
/// How many sandboxes start at a time: more of them only take the processors from each other.
const STARTING: usize = 4;
const READY: &str = "overlay IP=";
const APPLIED: &str = "the policy has changed";

fn main() {
    let argument = |n, default| std::env::args().nth(n).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (sandboxes, rounds): (usize, usize) = (argument(1, 100), argument(2, 20));
    let mut lab = Lab::start();
    // Apart from each other: a mesh of a hundred in one kernel overflows its table of neighbours (1024).
    let (tool, apart) =
        (lab.host(), ["policy", "add", "apart", "--workspace", "demo", "--selector", "kind=sandbox"]);
    let (_node, _) = lab.up(&tool, "tool");
    lab.admin(&[&apart[..], &["--allow-egress", "{kind=node}"]].concat());
    let hosts: Vec<Host> = (0..sandboxes).map(|_| lab.host()).collect();
    let begun = Instant::now();
    let running = start_all(&lab, &hosts);
    println!("{sandboxes} sandboxes run, after {:.1} s", begun.elapsed().as_secs_f64());

    let (mut commands, mut reached) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let before: Vec<usize> =
            running.iter().map(|process| process.output().1.matches(APPLIED).count()).collect();
        let (begun, clock) = (Timestamp::now(), Instant::now());
        if round % 2 == 0 {
            let add =
                ["policy", "add", "bench", "--workspace", "demo", "--deny-egress", "tcp:10.42.0.0/24:80"];
            lab.admin(&add);
        } else {
            lab.admin(&["policy", "remove", "bench", "--workspace", "demo"]);
        }
        commands.push(clock.elapsed().as_secs_f64() * 1e3);
        for (process, before) in running.iter().zip(before) {
            reached.push(applied(process, before, clock).duration_since(begun).as_secs_f64() * 1e3);
        }
        thread::sleep(Duration::from_millis(200));
    }
    println!("{:<34} {:>8} {:>8} {:>8}   (ms, {rounds} changes)", "", "p50", "p99", "largest");
    print("baseline: lattice policy, to its end", commands);
    print(&format!("in force, each of {sandboxes} sandboxes"), reached);
}

fn start_all(lab: &Lab, hosts: &[Host]) -> Vec<Process> {
    let mut running: Vec<Process> = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        if let Some(before) = number.checked_sub(STARTING) {
            running[before].wait_for(READY, LIMIT);
        }
        let name = format!("agent-{number}");
        let mut start = agent::start(lab, host, &name, &["10.42.0.0/16"]);
        start.env("LATTICE_LOG", "info").args(["--agent-binary", "/bin/sleep", "--", "100000"]);
        running.push(Process::spawn(start, &name, lab.dir.path()));
    }
    running.iter_mut().for_each(|process| process.wait_for(READY, LIMIT));
    running
}

/// When the log says that the sandbox has its next policy.
fn applied(process: &Process, before: usize, since: Instant) -> Timestamp {
    loop {
        let log = process.output().1;
        if let Some(line) = log.lines().filter(|line| line.contains(APPLIED)).nth(before) {
            let stamp = line.split_whitespace().next().unwrap_or_default();
            return stamp.parse().unwrap_or_else(|error| panic!("{stamp:?}: {error}"));
        }
        assert!(since.elapsed() < LIMIT, "{} was not told", process.name);
        thread::sleep(Duration::from_millis(5));
    }
}

fn print(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what:<34} {:>8.1} {:>8.1} {:>8.1}", at(0.5), at(0.99), at(1.0));
}
