//! What pod mode's network costs, beside wireguard-go with gVisor's TCP/IP stack, in turn, in one run. Needs root: `make bench-pod`, or
//! `cargo run --release -p lattice-overlay --example pod_bench -- [quick [PREFIX]]` with `LATTICE_NETSTACK` naming the built `netstack/`. With a
//! prefix, only the measures whose names begin so are taken, such as `down`.
//!
//! ```text
//!  near namespace                                                       far namespaces
//!  load ── SOCKS5 ──► client: ours or the other ── WireGuard, veth ──► our TUN device ── server on the kernel's TCP
//! ```
//!
//! Everything shares this machine's cores: compare the figures of a run, not those of two. CPU time and memory are of the client's process
//! alone. A ratio is the median of those of the rounds, each of which takes both clients.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run should say where"
)]

mod client;
mod lab;
mod load;
mod ours;
mod report;

use std::{env, process::ExitCode, time::Duration};

use client::{Client, Kind};
use lab::Lab;
use load::Load;
use report::Report;

/// How long idle flows are watched.
const REST: Duration = Duration::from_secs(10);
/// How long flows may take to end.
const FAREWELL: Duration = Duration::from_secs(1);
const IDLE_FLOWS: &str = "100";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(load::LOAD) => load::run(&arguments[1..]).unwrap(),
        Some(ours::CLIENT) => ours::run(&arguments[1..]),
        Some("quick") => compare(2, 2, arguments.get(1).map_or("", String::as_str)),
        None => compare(5, 3, ""),
        Some(other) => {
            eprintln!(
                "pod_bench: {other:?} is nothing it does; the arguments are quick, and what the names of measures begin with"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn compare(rounds: usize, seconds: u64, only: &str) {
    let lab = Lab::new();
    let kinds = Kind::here();
    let mut report = Report::new(&kinds);
    // Before anything else has grown their memory.
    if only.is_empty() {
        rest(&lab, &kinds, &mut report);
    }
    let clients: Vec<Client> = kinds.iter().map(|kind| Client::start(&lab, kind)).collect();
    let time = seconds.to_string();
    for round in 0..rounds {
        for (rate, cost, load) in [
            ("up, 1 flow: Gbit/s", "up, 1 flow: CPU-s/GiB", ["up", "1"]),
            ("up, 16 flows: Gbit/s", "up, 16 flows: CPU-s/GiB", ["up", "16"]),
            ("down, 1 flow: Gbit/s", "down, 1 flow: CPU-s/GiB", ["down", "1"]),
            ("down, 16 flows: Gbit/s", "down, 16 flows: CPU-s/GiB", ["down", "16"]),
        ]
        .into_iter()
        .filter(|(name, ..)| name.starts_with(only))
        {
            for (which, client) in in_turn(&clients, round) {
                let (numbers, spent) = client.spent(&lab, &[load[0], load[1], &time]);
                report.add(rate, which, numbers[0] * 8e-9 / numbers[1]);
                report.add(cost, which, spent / (numbers[0] / f64::from(1 << 30)));
            }
        }
        for (p50, p99, cost, load) in [
            ("request of 64 B: p50 µs", "request of 64 B: p99 µs", "request of 64 B: CPU µs", "ask"),
            (
                "new connection and request: p50 µs",
                "new connection and request: p99 µs",
                "new connection and request: CPU µs",
                "connect",
            ),
        ]
        .into_iter()
        .filter(|(name, ..)| name.starts_with(only))
        {
            for (which, client) in in_turn(&clients, round) {
                let (numbers, spent) = client.spent(&lab, &[load, &time]);
                report.add(p50, which, numbers[0]);
                report.add(p99, which, numbers[1]);
                report.add(cost, which, spent * 1e6 / numbers[2]);
            }
        }
    }
    for (which, client) in clients.iter().enumerate() {
        report.add("after all that: peak RSS MiB", which, client.memory("VmHWM:"));
    }
    report.print(rounds, seconds);
}

/// Memory and CPU time of new clients with nothing to do.
fn rest(lab: &Lab, kinds: &[Kind], report: &mut Report) {
    let clients: Vec<Client> = kinds.iter().map(|kind| Client::start(lab, kind)).collect();
    for (which, client) in clients.iter().enumerate() {
        report.add("started: RSS MiB", which, client.memory("VmRSS:"));
    }
    let flows: Vec<Load> = clients
        .iter()
        .map(|client| {
            let mut load = client.load(lab, &["hold", IDLE_FLOWS]);
            load.numbers();
            load
        })
        .collect();
    let before: Vec<f64> = clients.iter().map(Client::cpu_seconds).collect();
    std::thread::sleep(REST);
    for (which, client) in clients.iter().enumerate() {
        report.add("100 idle flows: RSS MiB", which, client.memory("VmRSS:"));
        report.add("100 idle flows: CPU ms in 10 s", which, (client.cpu_seconds() - before[which]) * 1e3);
    }
    drop(flows);
    // The far end is to hear of the flows' end from the clients, before these end themselves.
    std::thread::sleep(FAREWELL);
}

/// Who begins changes from round to round.
fn in_turn(clients: &[Client], round: usize) -> impl Iterator<Item = (usize, &Client)> {
    let count = clients.len();
    (0..count).map(move |at| (at + round) % count).map(|which| (which, &clients[which]))
}
