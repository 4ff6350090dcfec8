//! How long `lattice sandbox start` takes beside a bare `runsc run` of the same program, in turn, in one run: until the agent runs, by the
//! agent's own clock, and from then until the command has ended.
//!
//! `cargo build --release --bins && cargo run --release -p lattice-tests --example start_bench -- 20`
//!
//! Each round enrols anew, resumes, and runs runsc alone. Prints the median and the largest of each phase in milliseconds.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use lattice_tests::{Host, Lab, Output, Process, agent, process::command, tools};

const LIMIT: Duration = Duration::from_secs(60);
/// The agent: it says in seconds when it runs.
const AGENT: [&str; 2] = ["/bin/date", "+%s.%N"];

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10);
    let mut lab = Lab::start();
    let tool = lab.host();
    let (_node, _) = lab.up(&tool, "tool");
    let host = lab.host();
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        for kind in ["enrolled", "resumed"] {
            if kind == "enrolled" {
                let _ = fs::remove_dir_all(host.dir.join("etc"));
            }
            let name = format!("agent-{round}");
            for (phase, ms) in sandbox(&lab, &host, &name) {
                figures.entry(format!("{kind} {phase}")).or_default().push(ms);
            }
        }
        for (phase, ms) in bare(&lab, &host) {
            figures.entry(format!("bare {phase}")).or_default().push(ms);
        }
    }
    println!("{:<28} {:>9} {:>9}   (ms, {rounds} rounds)", "", "median", "largest");
    for (what, mut times) in figures {
        times.sort_by(f64::total_cmp);
        println!("{what:<28} {:>9.1} {:>9.1}", times[times.len() / 2], times[times.len() - 1]);
    }
}

/// Runs a command that runs the agent, and gives its output, when the agent ran, how long it took from then to its end, and the whole.
fn timed(lab: &Lab, command: Command, name: &str) -> (Output, Vec<(String, f64)>) {
    let (began, begun) = (SystemTime::now(), Instant::now());
    let out = Process::spawn(command, name, lab.dir.path()).finish(LIMIT);
    let total = begun.elapsed().as_secs_f64() * 1e3;
    assert_eq!(out.code, 0, "{}", out.stderr);
    let said: f64 = out.stdout.trim().parse().unwrap_or(f64::NAN);
    let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let runs = (said - began.as_secs_f64()) * 1e3;
    let rows =
        [("91 agent runs", runs), ("92 from there to exit", total - runs), ("93 start to exit", total)];
    (out, rows.map(|(what, ms)| (what.to_owned(), ms)).into())
}

/// The phases that `lattice` prints, and the whole.
fn sandbox(lab: &Lab, host: &Host, name: &str) -> Vec<(String, f64)> {
    let mut start = agent::start(lab, host, name, &["10.42.0.2/32:8080"]);
    start.args(["--agent-binary", AGENT[0], "--"]).args(&AGENT[1..]);
    let (out, mut phases) = timed(lab, start, name);
    for (number, line) in (10..).zip(out.stderr.lines()) {
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "[").collect();
        match words.as_slice() {
            [_, step, ms, "ms", ..] => {
                phases.push((format!("{number} {step}"), ms.parse().unwrap_or(f64::NAN)));
            }
            [at, "ready", ..] => {
                let seconds: f64 = at.trim_matches(['[', ']', 's']).parse().unwrap_or(f64::NAN);
                phases.push(("90 phase one".into(), seconds * 1e3));
            }
            _ => {}
        }
    }
    phases
}

/// The same program under runsc alone, in the host's namespace.
fn bare(lab: &Lab, host: &Host) -> Vec<(String, f64)> {
    let bundle = lab.dir.path().join("bundle");
    let _ = fs::create_dir(&bundle);
    let spec = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": AGENT, "cwd": "/", "env": ["PATH=/usr/bin:/bin"] },
        "root": { "path": tools::rootfs(), "readonly": true },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }] }
    });
    fs::write(bundle.join("config.json"), spec.to_string()).unwrap_or_else(|error| panic!("{error}"));
    let runsc = tools::runsc().unwrap_or_else(|| "runsc".into());
    let mut run = command(&host.netns.path(), Path::new(&runsc));
    run.arg("--root").arg(lab.dir.path().join("runsc")).args([
        "--network=host",
        "--ignore-cgroups",
        "run",
        "--bundle",
    ]);
    run.arg(&bundle).arg("bare");
    timed(lab, run, "runsc").1
}
