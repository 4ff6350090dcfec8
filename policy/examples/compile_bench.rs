//! How long compiling a policy takes, beside flattening that compares every rule with every other.
//!
//! `cargo run --release -p lattice-policy --example compile_bench`

use std::{hint::black_box, io, io::Write, net::Ipv4Addr, time::Duration, time::Instant};

use ipnet::{IpNet, Ipv4Net};
use lattice_policy::{Action, Policy, PortRange, Proto, Rule, RuleSpec, Target};

/// The quadratic way takes minutes beyond this.
const NAIVE_UP_TO: usize = 10_000;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>8} {:>14} {:>14} {:>8} {:>10} {:>10}",
        "rules", "compile", "n*n flatten", "ratio", "entries", "matches"
    )?;
    for rules in [1, 100, 10_000, 60_000] {
        let policy = policy(rules);
        let (compile, table) = best(5, || policy.compile());
        let matches: usize = table.egress.iter().map(|entry| entry.matches.len()).sum();
        write!(out, "{rules:>8} {compile:>14.2?} ")?;
        if rules <= NAIVE_UP_TO {
            let (naive, _) = best(1, || naive(policy.rules()));
            write!(out, "{naive:>14.2?} {:>8.1}", naive.as_secs_f64() / compile.as_secs_f64())?;
        } else {
            write!(out, "{:>14} {:>8}", "-", "-")?;
        }
        writeln!(out, " {:>10} {matches:>10}", table.egress.len())?;
    }
    Ok(())
}

/// Prefixes from /8 to /32 that cover each other here and there; one rule in eight denies.
fn policy(rules: usize) -> Policy {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        // xorshift64: the same policy in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..rules).fold(Policy::new(1), |policy, _| {
        let (bits, len) = (random() as u32, 8 + (random() % 25) as u8);
        let Ok(net) = Ipv4Net::new(Ipv4Addr::from_bits(bits), len) else { return policy };
        let target = Target::Net(IpNet::V4(net.trunc()));
        let ports = if random() % 2 == 0 { vec![PortRange { lo: 443, hi: 443 }] } else { Vec::new() };
        let action = if random() % 8 == 0 { Action::Deny } else { Action::Allow };
        policy.egress(action, RuleSpec { proto: Proto::Tcp, target, ports, text: String::new() })
    })
}

/// For every prefix, the rules of every prefix that covers it: denies first, then by id.
fn naive(rules: &[Rule]) -> Vec<(IpNet, Vec<&Rule>)> {
    let covering = |net: &IpNet| {
        let mut covering: Vec<&Rule> = rules.iter().filter(|rule| rule.net.contains(net)).collect();
        covering.sort_by_key(|rule| (rule.action != Action::Deny, rule.id));
        covering
    };
    rules.iter().map(|rule| (rule.net, covering(&rule.net))).collect()
}

/// The shortest of `rounds` runs, and what the last one gave.
fn best<T>(rounds: usize, work: impl Fn() -> T) -> (Duration, T) {
    let run = || {
        let start = Instant::now();
        let result = black_box(work());
        (start.elapsed(), result)
    };
    let mut best = run();
    for _ in 1..rounds {
        let (took, result) = run();
        best = (best.0.min(took), result);
    }
    best
}
