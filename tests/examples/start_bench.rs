//! How long `lattice sandbox start` takes beside a bare `runsc run` of the same program, in turn, in one run.
//!
//! `cargo build --release --bins && cargo run --release -p lattice-tests --example start_bench -- 20`
//!
//! Each round enrols anew, resumes, and runs runsc alone. Prints the median and the largest of each phase in milliseconds.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use lattice_tests::{Host, Lab, Process, agent, process::command, tools};

const LIMIT: Duration = Duration::from_secs(60);

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
        figures.entry("bare runsc run".into()).or_default().push(bare(&lab, &host));
    }
    println!("{:<28} {:>9} {:>9}   (ms, {rounds} rounds)", "", "median", "largest");
    for (what, mut times) in figures {
        times.sort_by(f64::total_cmp);
        println!("{what:<28} {:>9.1} {:>9.1}", times[times.len() / 2], times[times.len() - 1]);
    }
}

/// The phases that `lattice` prints, and the whole.
fn sandbox(lab: &Lab, host: &Host, name: &str) -> Vec<(String, f64)> {
    let mut start = agent::start(lab, host, name, &["10.42.0.2/32:8080"]);
    start.args(["--agent-binary", "/bin/true"]);
    let begun = Instant::now();
    let out = Process::spawn(start, name, lab.dir.path()).finish(LIMIT);
    let total = begun.elapsed().as_secs_f64() * 1e3;
    assert_eq!(out.code, 0, "{}", out.stderr);
    let mut phases = vec![("9 start to exit".to_owned(), total)];
    for (number, line) in out.stderr.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "[").collect();
        match words.as_slice() {
            [_, step, ms, "ms", ..] => {
                phases.push((format!("{number} {step}"), ms.parse().unwrap_or(f64::NAN)));
            }
            [at, "ready", ..] => {
                let seconds: f64 = at.trim_matches(['[', ']', 's']).parse().unwrap_or(f64::NAN);
                phases.push(("8 phase one".into(), seconds * 1e3));
            }
            _ => {}
        }
    }
    phases
}

/// The same program under runsc alone, in the host's namespace.
fn bare(lab: &Lab, host: &Host) -> f64 {
    let bundle = lab.dir.path().join("bundle");
    let _ = fs::create_dir(&bundle);
    let spec = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/usr/bin:/bin"] },
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
    let begun = Instant::now();
    let out = Process::spawn(run, "runsc", lab.dir.path()).finish(LIMIT);
    assert_eq!(out.code, 0, "{}", out.stderr);
    begun.elapsed().as_secs_f64() * 1e3
}
