//! What the control plane costs: enrolments, heartbeats and pushes of changed maps, by the number of peers.
//!
//! `make bench-control`, or
//! `cargo build --release --bin latticed && cargo run --release -p latticed --example control_bench -- [--database-url URL] 100 1000 10000`
//!
//! The peers are simulated: enrolled over HTTP, then spoken for by one NATS user with every right, so that the bench itself costs
//! little. Beside each figure stands a baseline of the same run: the same messages over the same NATS server with nobody who
//! thinks about them.

#![allow(unreachable_pub)] // nothing is outside an example
#![allow(clippy::unwrap_used)] // a bench that cannot go on should say where

mod control;
#[allow(dead_code)] // one source with the binary, which uses more of it
#[path = "../../src/nats/jwt.rs"]
mod jwt;
mod peers;
mod report;

use std::process::ExitCode;

use control::Control;
use peers::Peers;
use report::Table;

/// Changes whose way to every peer is timed.
const PUSHES: usize = 20;
/// Heartbeats that are sent, a batch on its way at any time.
const HEARTBEATS: usize = 20_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let database = match args.iter().position(|arg| arg == "--database-url") {
        Some(at) if at + 1 < args.len() => args.drain(at..at + 2).nth(1),
        _ => None,
    };
    let sizes: Result<Vec<usize>, _> = args.iter().map(|arg| arg.parse()).collect();
    let sizes = match sizes {
        Ok(sizes) if sizes.is_empty() => vec![100, 1000, 10_000],
        Ok(sizes) => sizes,
        Err(error) => {
            eprintln!("control_bench: a number of peers is expected: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut table = Table::new(if database.is_some() { "Postgres" } else { "SQLite" });
    for size in sizes {
        let control = Control::start(database.as_deref());
        table.row(measure(&control, size).await);
    }
    table.print();
    ExitCode::SUCCESS
}

async fn measure(control: &Control, size: usize) -> report::Row {
    let memory_before = control.memory();
    let (ids, enrolled) = control.enroll(size);
    let memory = control.memory().saturating_sub(memory_before) / size as u64;
    let peers = Peers::connect(control, ids).await;
    peers.all_online().await;

    let cpu = control.cpu();
    let heartbeats = peers.heartbeats(HEARTBEATS).await;
    let cpu_per_heartbeat = (control.cpu() - cpu) / HEARTBEATS as f64;
    let echo = peers.echoes(HEARTBEATS).await;

    let mut pushes = Vec::new();
    for round in 0..PUSHES {
        pushes.extend(peers.push(round).await);
    }
    let raw = peers.raw_fan_out().await;
    report::Row { size, enrolled, memory, heartbeats, cpu_per_heartbeat, echo, pushes, raw }
}
