//! What the control plane costs: enrolments, heartbeats and pushes of changed maps, by the number of peers.
//!
//! `make bench-control`, or for SQLite alone
//! `cargo build --release --bin latticed && cargo run --release -p latticed --example control_bench -- 100 1000 10000`
//!
//! With `--sandboxed` beside the numbers, ten of the peers are tools and all others have the preset `sandboxed`: each of those may
//! talk with tools alone. Without it, each may talk with each: the work to tell them of each other grows with the square of their
//! number, so ten thousand of those are measured only when asked for. A size that takes longer than a quarter of an hour is given up.
//!
//! The peers are simulated: one NATS user with every right enrols and speaks for all of them, so that the bench itself costs
//! little. Beside each figure stands a baseline of the same run: the same messages over the same NATS server with nobody who
//! thinks about them.

#![allow(unreachable_pub)] // nothing is outside an example
#![allow(clippy::unwrap_used)] // a bench that cannot go on should say where

#[allow(dead_code)] // as below
#[path = "../../src/nats/bootstrap.rs"]
mod bootstrap;
mod control;
mod enroll;
#[allow(dead_code)] // one source with the binary, which uses more of it
#[path = "../../src/nats/jwt.rs"]
mod jwt;
mod peers;
mod report;

use std::{process::ExitCode, time::Duration};

use control::Control;
use peers::Peers;
use report::Table;
use serde_json::json;
use tokio::time::{sleep, timeout};

/// Peers that all others may talk with, in [`Shape::Sandboxed`].
const TOOLS: usize = 10;
/// Peers that join one by one when all others are there.
const JOINS: usize = 20;
/// From one to the next: none is told together with another.
const JOIN_PAUSE: Duration = Duration::from_millis(300);
/// Changes whose way to every peer is timed.
const PUSHES: usize = 20;
/// For one size.
const LIMIT: Duration = Duration::from_secs(900);
/// Heartbeats that are sent, a batch on its way at any time; of one peer only so many, or latticed would slow it down.
const HEARTBEATS: usize = 20_000;
const HEARTBEATS_EACH: usize = 15;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let (options, sizes): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg == "--sandboxed");
    let shape = if options.is_empty() { Shape::Mesh } else { Shape::Sandboxed };
    let sizes: Result<Vec<usize>, _> = sizes.iter().map(|arg| arg.parse()).collect();
    let sizes = match sizes {
        Ok(sizes) if sizes.is_empty() && shape == Shape::Mesh => vec![100, 1000],
        Ok(sizes) if sizes.is_empty() => vec![100, 1000, 9_900],
        Ok(sizes) => sizes,
        Err(error) => {
            eprintln!("control_bench: a number of peers is expected: {error}");
            return ExitCode::FAILURE;
        }
    };
    let postgres = std::env::var("LATTICE_BENCH_POSTGRES").ok();
    for (store, url) in [("SQLite", None), ("Postgres", postgres.as_deref())] {
        if store == "Postgres" && url.is_none() {
            eprintln!("control_bench: no Postgres: LATTICE_BENCH_POSTGRES is not set");
            continue;
        }
        let mut table = Table::new(store, shape);
        for size in &sizes {
            let control = Control::start(url);
            match timeout(LIMIT, measure(&control, *size, shape)).await {
                Ok(row) => table.row(row),
                Err(_) => eprintln!("{size} peers given up after {} s", LIMIT.as_secs()),
            }
        }
        table.print();
    }
    ExitCode::SUCCESS
}

/// Who may talk with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Each with each.
    Mesh,
    /// Each with [`TOOLS`] of them.
    Sandboxed,
}

async fn measure(control: &Control, size: usize, shape: Shape) -> report::Row {
    let memory_before = control.memory();
    let client = control.nats().await;
    let (tools, token, more) = match shape {
        Shape::Mesh => (vec![], control.token(size, &json!({})), control.token(JOINS, &json!({}))),
        Shape::Sandboxed => {
            let preset = json!({"preset": "sandboxed"});
            let tools = control.token(TOOLS, &json!({"labels": {"role": "tool"}}));
            (
                enroll::enroll(control, &client, &tools, 0..TOOLS).await.0,
                control.token(size, &preset),
                control.token(JOINS, &preset),
            )
        }
    };
    let told = if shape == Shape::Mesh { size } else { TOOLS };
    let mut ids = tools;
    let (others, enrolled) = enroll::enroll(control, &client, &token, ids.len()..size).await;
    ids.extend(others);
    let memory = control.memory().saturating_sub(memory_before) / size as u64;
    let peers = Peers::connect(client.clone(), ids, told).await;
    peers.all_online().await;

    let cpu = control.cpu();
    for n in size..size + JOINS {
        enroll::enroll(control, &client, &more, n..n + 1).await;
        sleep(JOIN_PAUSE).await;
    }
    let pushes = peers.settled().await;
    let cpu_per_join = (control.cpu() - cpu) / JOINS as f64;
    let told_per_join = pushes as f64 / JOINS as f64;

    let count = HEARTBEATS.min(size * HEARTBEATS_EACH);
    let cpu = control.cpu();
    let heartbeats = peers.heartbeats(count).await;
    let cpu_per_heartbeat = (control.cpu() - cpu) / count as f64;
    let echo = peers.echoes(count).await;

    let mut pushes = Vec::new();
    for round in 0..PUSHES {
        pushes.extend(peers.push(round).await);
    }
    let raw = peers.raw_fan_out().await;
    report::Row {
        size,
        enrolled,
        memory,
        heartbeats,
        cpu_per_heartbeat,
        echo,
        cpu_per_join,
        told_per_join,
        pushes,
        raw,
    }
}
