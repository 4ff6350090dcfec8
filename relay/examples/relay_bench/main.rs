//! What it costs to pass on a full-size datagram, in CPU time of the relay's process, beside coturn, which is a TURN server, beside derper,
//! and beside a process that does nothing but receive from one UDP socket and send to another. Loads of all take turns.
//!
//! `make bench-relay`, or `cargo run --release -p lattice-relay --example relay_bench [seconds per turn [part of a row's name]]`
//!
//! coturn is given what costs it least: a client that speaks TURN over plain UDP, with a channel, to a peer that needs no allocation of
//! its own; so it reads a datagram, strips four bytes and sends it. It encrypts nothing. LRP is decrypted and encrypted again on its way,
//! by QUIC or by TLS. What does the same work is derper, Tailscale's relay, over TLS as well.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod derp_load;
mod lrp_load;
mod server;
mod turn_load;
mod udp_load;

use std::{collections::BTreeMap, env, time::Duration};

use lattice_wire::lrp;
use server::Server;

const ROUNDS: usize = 3;
/// What WireGuard adds to an inner packet, in bytes.
const WIREGUARD: usize = 32;
/// Clients of the relay whose memory is looked at. A relay takes 256 of one source without making them wait.
const IDLE: usize = 200;

/// What one load came to.
struct Outcome {
    sent: u64,
    received: u64,
    /// CPU seconds of the relay, and seconds.
    cpu: f64,
    took: f64,
}

fn main() {
    match env::args().nth(1).as_deref() {
        Some("--relay") => server::serve_relay(),
        Some("--udp") => server::serve_udp(),
        seconds => {
            let turn = Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(3));
            compare(turn, &env::args().nth(2).unwrap_or_default());
        }
    }
}

fn compare(turn: Duration, wanted: &str) {
    let mut all = BTreeMap::<(usize, usize, &str), Vec<f64>>::new();
    println!(
        "{:<22} {:>5} {:>6} {:>12} {:>15} {:>8}",
        "", "pairs", "inner", "datagrams/s", "per CPU-second", "lost"
    );
    for _ in 0..ROUNDS {
        for (pairs, inner) in [(1, 1280), (1, 1420), (100, 1280), (100, 1420)] {
            let size = inner + WIREGUARD;
            let mut measure = |name: &'static str, load: &dyn Fn() -> Option<Outcome>| {
                let Some(outcome) = name.contains(wanted).then(load).flatten() else { return };
                let lost = 100.0 * (1.0 - outcome.received as f64 / outcome.sent.max(1) as f64);
                let each = outcome.received as f64 / outcome.cpu.max(0.01);
                let rate = outcome.received as f64 / outcome.took;
                println!("{name:<22} {pairs:>5} {inner:>6} {rate:>12.0} {each:>15.0} {lost:>6.1} %");
                all.entry((pairs, inner, name)).or_default().push(each);
            };
            if pairs == 1 {
                measure("bare UDP forwarder", &|| Some(udp_load::run(turn, size)));
            }
            measure("coturn, plain UDP", &|| turn_load::run(turn, size, pairs));
            // What is larger than that no QUIC datagram is sure to hold.
            if size <= lrp::FULL_SIZE {
                measure("LRP, QUIC to QUIC", &|| Some(lrp_load::run(turn, size, pairs, true)));
            }
            measure("LRP, TCP to TCP", &|| Some(lrp_load::run(turn, size, pairs, false)));
            measure("derper, TCP to TCP", &|| derp_load::run(turn, size, pairs));
        }
    }
    println!("\nmedians per CPU-second, times coturn's and times derper's");
    all.values_mut().for_each(|each| each.sort_by(f64::total_cmp));
    for ((pairs, inner, name), each) in &all {
        let of = |each: &Vec<f64>| each[each.len() / 2];
        let [coturn, derper] = ["coturn, plain UDP", "derper, TCP to TCP"].map(|other| {
            let other = all.get(&(*pairs, *inner, other)).map(of);
            other.map_or(String::new(), |other| format!("{:.2}", of(each) / other))
        });
        println!("{name:<22} {pairs:>5} {inner:>6} {:>15.0} {coturn:>8} {derper:>8}", of(each));
    }
    for quic in [true, false] {
        let server = Server::start("--relay");
        let bytes = lrp_load::idle(&server, IDLE, quic);
        println!(
            "memory of an idle client by {}: {:.1} KiB",
            if quic { "QUIC" } else { "TCP" },
            bytes / 1024.0
        );
    }
}
