//! How long until a policy of the control plane is in force in every running sandbox.
//!
//! `cargo build --release --bins && cargo run --release -p lattice-tests --example live_bench -- 100 20`
//!
//! Starts so many sandboxes (200 at most), a few at a time, then adds and removes a policy for all of them, round after round. A
//! sandbox's time runs from before `lattice policy add` is started to the log line that its enforcer has the new policy. The
//! baseline is the time until that command itself has ended. Says also which processes took how much processor time for a
//! change, and at rest before.
//!
//! The agents sleep, on gVisor's platform `ptrace`: on `systrap`, before google/gvisor#13470, an idle sandbox wakes up each
//! 0.4 ms, and a hundred of them take more than two processors have. `LATTICE_PLATFORM=systrap` shows it.

mod usage;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use lattice_audit::Timestamp;
use lattice_tests::{Host, Lab, Process, agent};
use usage::{KINDS, Usage};

const LIMIT: Duration = Duration::from_secs(120);
/// How many sandboxes start at a time: more of them only take the processors from each other.
const STARTING: usize = 4;
/// How long nothing is asked of anybody, before and between changes.
const REST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);
const READY: &str = "overlay IP=";
const APPLIED: &str = "the policy has changed";

fn main() {
    let argument = |n, default| std::env::args().nth(n).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (sandboxes, rounds): (usize, usize) = (argument(1, 100), argument(2, 20));
    let full = neighbours_refused();
    let mut lab = Lab::start();
    // Apart from each other: a mesh of a hundred in one kernel overflows its table of neighbours (1024).
    let (tool, apart) =
        (lab.host(), ["policy", "add", "apart", "--workspace", "demo", "--selector", "kind=sandbox"]);
    let (_node, _) = lab.up(&tool, "tool");
    lab.admin(&[&apart[..], &["--allow-egress", "{kind=node}"]].concat());
    let hosts: Vec<Host> = (0..sandboxes).map(|_| lab.host()).collect();
    let begun = Instant::now();
    let mut running = start_all(&lab, &hosts);
    println!("{sandboxes} sandboxes run, after {:.1} s", begun.elapsed().as_secs_f64());
    let before = Usage::now();
    thread::sleep(REST);
    let idle = Usage::now().since(before);

    let (mut commands, mut reached) = (Vec::new(), Vec::new());
    let mut spent = Usage::default();
    for round in 0..rounds {
        running.iter_mut().for_each(Log::forget);
        let before = Usage::now();
        let (begun, clock) = (Timestamp::now(), Instant::now());
        if round % 2 == 0 {
            let add =
                ["policy", "add", "bench", "--workspace", "demo", "--deny-egress", "tcp:10.42.0.0/24:80"];
            lab.admin(&add);
        } else {
            lab.admin(&["policy", "remove", "bench", "--workspace", "demo"]);
        }
        commands.push(clock.elapsed().as_secs_f64() * 1e3);
        // Whoever looks takes the processor from those that it waits for.
        thread::sleep(PAUSE);
        let times: Vec<f64> = running
            .iter_mut()
            .map(|log| log.applied(clock).duration_since(begun).as_secs_f64() * 1e3)
            .collect();
        let used = Usage::now().since(before);
        spent = Usage(std::array::from_fn(|kind| spent.0[kind] + used.0[kind]));
        println!("change {round}: last after {:.1} ms", times.iter().copied().fold(0.0, f64::max));
        reached.extend(times);
    }
    println!("{:<34} {:>8} {:>8} {:>8}   (ms, {rounds} changes)", "", "p50", "p99", "largest");
    print("baseline: lattice policy, to its end", commands);
    print(&format!("in force, each of {sandboxes} sandboxes"), reached);
    println!("{:<34} {:>14} {:>20}", "processor time", "at rest, ms/s", "with a change, ms");
    for (kind, name) in KINDS.iter().enumerate() {
        let (at_rest, each) = (idle.0[kind] / REST.as_secs_f64(), spent.0[kind] / rounds as f64);
        println!("{name:<34} {at_rest:>14.2} {each:>20.2}");
    }
    let refused = neighbours_refused() - full;
    println!("the kernel's table of neighbours was full {refused} times");
}

/// A sandbox and what of its log was read.
struct Log {
    process: Process,
    read: u64,
}

fn start_all(lab: &Lab, hosts: &[Host]) -> Vec<Log> {
    let mut running: Vec<Process> = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        if let Some(before) = number.checked_sub(STARTING) {
            running[before].wait_for(READY, LIMIT);
        }
        let name = format!("agent-{number}");
        let mut start = agent::start(lab, host, &name, &["10.42.0.0/16"]);
        let platform = std::env::var("LATTICE_PLATFORM").unwrap_or_else(|_| "ptrace".into());
        start.env("LATTICE_LOG", "info").args(["--platform", &platform]);
        start.args(["--agent-binary", "/bin/sleep", "--", "100000"]);
        running.push(Process::spawn(start, &name, lab.dir.path()));
    }
    running.iter_mut().for_each(|process| process.wait_for(READY, LIMIT));
    running.into_iter().map(|process| Log { process, read: 0 }).collect()
}

impl Log {
    /// Passes over what there is.
    fn forget(&mut self) {
        self.read += self.process.stderr_after(self.read).len() as u64;
    }

    /// When it says that the sandbox has its next policy.
    fn applied(&mut self, since: Instant) -> Timestamp {
        loop {
            let new = self.process.stderr_after(self.read);
            let log = String::from_utf8_lossy(&new);
            if let Some(line) = log.lines().find(|line| line.contains(APPLIED)) {
                let stamp = line.split_whitespace().next().unwrap_or_default();
                return stamp.parse().unwrap_or_else(|error| panic!("{stamp:?}: {error}"));
            }
            assert!(since.elapsed() < LIMIT, "{} was not told", self.process.name);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How often a namespace got no entry in the table of IPv4 neighbours, which all namespaces share: `table_fulls`, of each processor.
fn neighbours_refused() -> u64 {
    let text = fs::read_to_string("/proc/net/stat/arp_cache").unwrap_or_default();
    let last = |line: &str| u64::from_str_radix(line.split_whitespace().last()?, 16).ok();
    text.lines().skip(1).filter_map(last).sum()
}

fn print(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what:<34} {:>8.1} {:>8.1} {:>8.1}", at(0.5), at(0.99), at(1.0));
}
