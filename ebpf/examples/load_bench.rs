//! Where the time of a policy's start goes: `cargo run --release -p lattice-ebpf --example load_bench -- 10` (as root).
//!
//! Polices the loopback of a network namespace of its own; nothing stays.

use std::{error::Error, path::PathBuf, time::Instant};

use lattice_ebpf::{AttachMode, Enforcer, Framing, Options, bpffs};
use lattice_policy::{Action, Policy, parse_rule};
use nix::sched::{CloneFlags, unshare};

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10);
    let policy = Policy::new(1).egress(Action::Allow, parse_rule("10.42.0.2/32:8080")?);
    let mut times: [Vec<f64>; 5] = Default::default();
    for round in 0..rounds {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let dir = PathBuf::from(format!("/tmp/lattice-load-bench-{}-{round}", std::process::id()));
        bpffs::mount(&dir)?;
        let options =
            Options { pin_dir: dir.clone(), own: vec!["10.42.0.3".parse()?], attach: AttachMode::Auto };
        let mut at = Instant::now();
        let mut lap = |step: usize| {
            times[step].push(at.elapsed().as_secs_f64() * 1e3);
            at = Instant::now();
        };
        let mut enforcer = Enforcer::load(&options)?;
        lap(0);
        enforcer.prepare(&[Framing::Ethernet])?;
        lap(1);
        enforcer.attach("lo", &[])?;
        lap(2);
        enforcer.apply(&policy.compile(), &[], 1)?;
        lap(3);
        drop(enforcer);
        bpffs::unmount(&dir)?;
        lap(4);
    }
    for (what, mut times) in ["load", "prepare", "attach", "apply", "unload"].into_iter().zip(times) {
        times.sort_by(f64::total_cmp);
        println!(
            "{what:<8} median {:>7.1} ms, largest {:>7.1} ms",
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
    println!("resident after all: {}", resident()?);
    Ok(())
}

fn resident() -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("unknown").trim().into())
}
