//! How long the first packet to a peer that nothing was said to before takes until its answer is there: path, handshake, and both ways.
//! Hosts are network namespaces, NATs the kernel's own; each sample starts both ends anew.
//!
//! `make bench-paths`, or `cargo run --release -p lattice-tests --example paths_bench [samples]`; the release's programs are built before.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{env, net::Ipv4Addr, path::Path, time::Duration};

use lattice_tests::{Host, Lab, Nat, Process, lab::wait_until, process::command};

const LIMIT: Duration = Duration::from_secs(60);
/// In seconds: who has not answered by then is counted with it.
const PATIENCE: f64 = 30.0;

/// Where the two hosts are.
#[derive(Clone, Copy)]
struct Places {
    name: &'static str,
    /// `None`: in the open.
    nats: [Option<Nat>; 2],
    /// IPv4 carries no UDP, and each has an IPv6 address.
    v6: bool,
    goal: f64,
}

const PLACES: [Places; 5] = [
    Places { name: "direct", nats: [None, None], v6: false, goal: 0.1 },
    Places { name: "direct, IPv6 alone", nats: [None, None], v6: true, goal: 0.1 },
    Places { name: "two NATs", nats: [Some(Nat::Cone), Some(Nat::Cone)], v6: false, goal: 1.0 },
    Places {
        name: "relay, symmetric NATs",
        nats: [Some(Nat::Symmetric), Some(Nat::Symmetric)],
        v6: false,
        goal: 0.5,
    },
    Places { name: "relay, UDP blocked", nats: [Some(Nat::NoUdp), None], v6: false, goal: 0.5 },
];

fn main() {
    let samples = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    println!("{:<24} {:>8} {:>10} {:>10} {:>10} {:>8}", "", "samples", "median", "p95", "longest", "goal");
    for places in PLACES {
        let mut seconds = measure(places, samples);
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share).ceil() as usize] * 1e3;
        let Places { name, goal, .. } = places;
        println!(
            "{name:<24} {samples:>8} {:>7.1} ms {:>7.1} ms {:>7.1} ms {:>5.0} ms",
            at(0.5),
            at(0.95),
            at(1.0),
            goal * 1e3
        );
    }
}

fn measure(places: Places, samples: usize) -> Vec<f64> {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let mut place = |nat: Option<Nat>, number: u8| {
        let (host, router) = match nat {
            Some(nat) => {
                let (host, router) = lab.host_behind(nat);
                (host, Some(router))
            }
            None => (lab.host(), None),
        };
        if places.v6 {
            host.ip(&format!("addr add fd50::{number}/64 dev eth0 nodad"));
            let mut nft = command(&host.netns.path(), Path::new("nft"));
            nft.arg("table ip closed { chain out { type filter hook output priority 0; meta l4proto udp drop; }; }");
            assert!(nft.status().expect("nft").success());
        }
        (host, router)
    };
    // A router goes when it is dropped.
    let ((a, _a), (b, _b)) = (place(places.nats[0], 2), place(places.nats[1], 3));
    (0..samples).map(|_| first_answer(&lab, &a, &b)).collect()
}

/// In seconds.
fn first_answer(lab: &Lab, a: &Host, b: &Host) -> f64 {
    let userspace = ["--wireguard", "userspace"];
    let (of_a, _) = lab.up_with(a, "a", &userspace);
    let (of_b, address) = lab.up_with(b, "b", &userspace);
    for (host, name, peer) in [(a, "a", "b"), (b, "b", "a")] {
        wait_until(LIMIT, "both to know each other, and the relay", || is_ready(lab, host, name, peer));
    }
    let seconds = ping(lab, a, address);
    for process in [of_a, of_b] {
        process.signal(nix::sys::signal::Signal::SIGTERM);
        process.finish(LIMIT);
    }
    seconds
}

fn is_ready(lab: &Lab, host: &Host, name: &str, peer: &str) -> bool {
    let status = lab.run(host, &["status", name, "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap_or_default();
    let overlay = &status["peers"][0]["overlay"];
    let has = |list: &str, of: &dyn Fn(&serde_json::Value) -> bool| {
        overlay[list].as_array().is_some_and(|all| all.iter().any(of))
    };
    has("peers", &|found| found["name"] == peer)
        && has("relays", &|relay| relay["state"] == "quic" || relay["state"] == "tcp")
}

fn ping(lab: &Lab, from: &Host, to: Ipv4Addr) -> f64 {
    let mut ping = command(&from.netns.path(), Path::new("ping"));
    ping.args(["-n", "-c", "1", "-W", &PATIENCE.to_string(), &to.to_string()]);
    let out = Process::spawn(ping, "ping", lab.dir.path()).finish(LIMIT);
    let time = out.stdout.split("time=").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    if time.is_none() {
        eprintln!("no answer to the first packet: {}", out.stdout.trim());
    }
    time.map_or(PATIENCE, |milliseconds| milliseconds / 1e3)
}
