//! Signals that come while a run starts: whatever stands by then ends, with the signal's exit code, and leaves nothing.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use lattice_tests::{Process, tools};
use nix::sys::signal::Signal;

use crate::{
    files::dir,
    place::{LIMIT, Place},
};

/// From the first instruction to a command that runs, and beyond, in milliseconds.
const DELAYS: [u64; 12] = [0, 40, 120, 250, 400, 600, 850, 1100, 1400, 1800, 2400, 3500];

#[test]
fn a_signal_at_any_moment_of_the_start_ends_it() {
    let place = Place::new();
    let passing = dir(&place.path("home/passing"));
    // It enrols, so that the runs below differ in when they are interrupted alone.
    let enrol = place.finish(place.run(true, &["--isolate", "netns"], &["true"]));
    assert_eq!(enrol.code, 0, "{}", enrol.stderr);
    let started = |isolate: &str| {
        let mut run =
            place.run(true, &["--isolate", isolate], &["env", "--default-signal=INT", "sleep", "1000"]);
        run.env("TMPDIR", &passing);
        if let Some(runsc) = tools::runsc() {
            run.env("LATTICE_RUNSC", runsc);
        }
        Process::spawn(run, "run", place.lab.dir.path())
    };
    let ended_well = |isolate: &str, signal: Signal, run: Process, when: &str| {
        let begun = Instant::now();
        run.signal(signal);
        let out = run.finish(LIMIT);
        assert_eq!(out.code, 128 + signal as i32, "{isolate}, {signal} {when}: {}{}", out.stdout, out.stderr);
        // Whoever is asked in vain is killed later than that, with another code.
        assert!(begun.elapsed() < LIMIT);
        place.assert_clean();
        let left: Vec<_> = fs::read_dir(&passing).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{isolate}, {signal} {when}: {left:?}");
    };
    for (index, delay) in DELAYS.into_iter().enumerate() {
        let signal = if index % 2 == 0 { Signal::SIGTERM } else { Signal::SIGINT };
        let run = started("gvisor");
        thread::sleep(Duration::from_millis(delay));
        ended_well("gvisor", signal, run, &format!("after {delay} ms"));
    }
    for (isolate, phase, signal) in [
        ("gvisor", "ready", Signal::SIGTERM),
        ("gvisor", "identity", Signal::SIGINT),
        ("netns", "identity", Signal::SIGTERM),
        ("netns", "ready", Signal::SIGINT),
        ("none", "identity", Signal::SIGINT),
    ] {
        let mut run = started(isolate);
        run.wait_for(phase, LIMIT);
        ended_well(isolate, signal, run, &format!("at {phase}"));
    }
}
