//! What the user-space device costs, beside wireguard-go, in turn, in one run. Needs root and wireguard-go:
//! `make bench-overlay`, or `cargo run --release -p lattice-overlay --example tun_bench [rounds] [seconds]`. A newer wireguard-go is
//! measured too where `LATTICE_WIREGUARD_GO` names one.
//!
//! Both ends and the programs that load them share this machine's cores: compare the figures of a run, not those of two. CPU time
//! and memory are of the two devices together, without those programs. The loss is made by nftables where the datagrams
//! arrive, which come by themselves then: no kernel of ours has netem.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say where")]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/devices/host.rs"]
mod host;
#[path = "tun_bench/load.rs"]
mod load;
#[path = "tun_bench/process.rs"]
mod process;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/devices/wireguard_go.rs"]
mod wireguard_go;

use std::{collections::BTreeMap, process::ExitCode};

use host::{Host, join, pair};
use load::Load;
use wireguard_go::WireGuardGo;

/// What each measure gives, by its name, of each round.
type Figures = BTreeMap<&'static str, Vec<f64>>;

/// A stream of datagrams that either device can carry here.
const DATAGRAM_MBITS: u64 = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == load::LOAD) {
        load::run(&arguments[1..]).unwrap();
        return ExitCode::SUCCESS;
    }
    let number = |at: usize, default| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let (rounds, seconds) = (number(0, 3), number(1, 4));
    let newer = std::env::var("LATTICE_WIREGUARD_GO").ok().filter(|path| !path.is_empty());
    let mut devices = vec![None, Some("wireguard-go".to_owned())];
    devices.extend(newer.map(Some));
    for percent in [0, 1] {
        let mut figures: Vec<Figures> = devices.iter().map(|_| Figures::new()).collect();
        for _ in 0..rounds {
            for (program, figures) in devices.iter().zip(&mut figures) {
                Lab::new(program.as_deref(), percent).measure(seconds, percent, figures);
            }
        }
        print(percent, &devices, &figures);
    }
    ExitCode::SUCCESS
}

fn print(percent: u8, devices: &[Option<String>], figures: &[Figures]) {
    println!("\n{percent} % loss{:>40}", "");
    for (program, figures) in devices.iter().zip(figures) {
        let version = program.as_deref().map(process::version);
        println!("  {}", version.as_deref().unwrap_or("lattice"));
        for (name, values) in figures {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let (median, least, most) = (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1]);
            println!("    {name:<34} {median:>9.2}   ({least:.2} to {most:.2})");
        }
    }
}

/// Two hosts whose devices know each other.
enum Lab {
    Ours(Host, Host),
    Go(WireGuardGo, WireGuardGo),
}

impl Lab {
    fn new(program: Option<&str>, percent: u8) -> Self {
        let lab = match program {
            None => {
                process::forget_peak_memory();
                let (a, b) = pair();
                Self::Ours(a, b)
            }
            Some(program) => {
                let (a, b) = join(Host::without_device(1), Host::without_device(2));
                let (a, b) = (WireGuardGo::start_as(a, program), WireGuardGo::start_as(b, program));
                a.set_peer(&b.host, Some(b.endpoint()));
                b.set_peer(&a.host, Some(a.endpoint()));
                a.bring_up();
                b.bring_up();
                Self::Go(a, b)
            }
        };
        let (a, b) = lab.hosts();
        assert!(a.udp_echo(b, b.inner_v4(), b"a session is there"));
        if percent > 0 {
            [a, b].into_iter().for_each(|host| process::lose(host, percent));
        }
        lab
    }

    fn hosts(&self) -> (&Host, &Host) {
        match self {
            Self::Ours(a, b) => (a, b),
            Self::Go(a, b) => (&a.host, &b.host),
        }
    }

    fn processes(&self) -> Vec<u32> {
        match self {
            Self::Ours(..) => vec![std::process::id()],
            Self::Go(a, b) => vec![a.id(), b.id()],
        }
    }

    fn measure(&self, seconds: u64, percent: u8, figures: &mut Figures) {
        let mut add = |name, value| figures.entry(name).or_default().push(value);
        let (_, server) = self.hosts();
        let time = seconds.to_string();
        let sink = self.server("sink");
        for (count, rate, cost) in [
            ("1", "TCP, 1 stream: Gbit/s", "TCP, 1 stream: CPU-s/GiB"),
            ("8", "TCP, 8 streams: Gbit/s", "TCP, 8 streams: CPU-s/GiB"),
        ] {
            let (numbers, spent) = self.spent(&["streams", &sink.1, count, &time]);
            add(rate, numbers[0] * 8e-9 / numbers[1]);
            add(cost, spent / gibibytes(numbers[0]));
        }
        let echo = self.server("echo");
        let (numbers, _) = self.spent(&["ask", &echo.1, &time]);
        add("request of 64 B: p50 µs", numbers[0]);
        add("request of 64 B: p99 µs", numbers[1]);
        if percent == 0 {
            let mut inbox = Load::start(server, &["inbox"]);
            let to = format!("{}:{}", server.inner_v4(), inbox.numbers()[0]);
            let (sent, spent) = self.spent(&["datagrams", &to, &DATAGRAM_MBITS.to_string(), &time]);
            let arrived = inbox.numbers()[0];
            add("UDP, 200 Mbit/s: CPU-s/GiB", spent / gibibytes(arrived));
            add("UDP, 200 Mbit/s: lost %", 100.0 - 100.0 * arrived / sent[0]);
        }
        let memory: f64 = self.processes().into_iter().map(process::peak_memory).sum();
        add("peak memory of both ends, MiB", memory);
    }

    /// A load on the second host, and where it listens.
    fn server(&self, load: &str) -> (Load, String) {
        let (_, server) = self.hosts();
        let mut started = Load::start(server, &[load]);
        let to = format!("{}:{}", server.inner_v4(), started.numbers()[0]);
        (started, to)
    }

    /// What a load on the first host says, and the devices' CPU time meanwhile, in seconds.
    fn spent(&self, load: &[&str]) -> (Vec<f64>, f64) {
        let cpu = || self.processes().into_iter().map(process::cpu_seconds).sum::<f64>();
        let before = cpu();
        let numbers = Load::start(self.hosts().0, load).numbers();
        (numbers, cpu() - before)
    }
}

fn gibibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 30)
}
