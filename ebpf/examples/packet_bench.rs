//! What the program costs a packet: `cargo run -p lattice-ebpf --features harness --example packet_bench` (as root).
//!
//! Prints the least mean of several rounds of a million runs each, in nanoseconds, with what `BPF_PROG_TEST_RUN` itself
//! takes; and what the harness takes to judge one frame. To compare two versions, build both and run them in turn.

use std::{error::Error, time::Instant};

use lattice_ebpf::harness::Harness;
use lattice_policy::{Action, Direction, Policy, parse_rule};

const ROUNDS: usize = 7;
const RUNS: u32 = 1_000_000;
const JUDGED: usize = 99_999;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let policy = Policy::new(1)
        .egress(Action::Allow, parse_rule("tcp:10.42.0.0/16:8080")?)
        .egress(Action::Deny, parse_rule("10.42.9.0/24")?);
    let mut harness = Harness::new(&["10.42.0.2".parse()?])?;
    harness.enforcer.apply(&policy.compile(), &[], 1)?;
    // The flow that the first of the measured frames belongs to.
    harness.judge(&segment([10, 42, 0, 1], SYN), Direction::Egress)?;
    // Resets, because what is not answered stays as it is in the next run.
    let frames = [
        ("established", segment([10, 42, 0, 1], ACK)),
        ("denied by a rule", segment([10, 42, 9, 1], RST)),
        ("denied by default", segment([198, 51, 100, 1], RST)),
    ];
    let mut least = [f64::MAX; 3];
    for _ in 0..ROUNDS {
        for (least, (_, frame)) in least.iter_mut().zip(&frames) {
            let mean = harness.time(frame, Direction::Egress, RUNS)?.as_nanos() as f64;
            *least = least.min(mean);
        }
    }
    for ((what, _), least) in frames.iter().zip(least) {
        println!("{what:<18} {least:>5.0} ns");
    }
    let began = Instant::now();
    for (_, frame) in frames.iter().cycle().take(JUDGED) {
        harness.judge(frame, Direction::Egress)?;
    }
    println!("{:<18} {:>5} ns", "harness", began.elapsed().as_nanos() / JUDGED as u128);
    Ok(())
}

fn segment(to: [u8; 4], flags: u8) -> Vec<u8> {
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let ip = [0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 42, 0, 2];
    let tcp = [4, 87, 0x1f, 0x90, 0, 0, 3, 232, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0];
    [&ethernet[..], &ip, &to, &tcp].concat()
}
