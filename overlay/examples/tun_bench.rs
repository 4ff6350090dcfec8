//! Throughput of one TCP stream through the user-space device and through wireguard-go, in turn, in one run. Needs root,
//! iperf3 and wireguard-go: `cargo run --release -p lattice-overlay --example tun_bench [rounds] [seconds]`.
//!
//! Both ends and iperf3 share this machine's cores: compare the ratio of a run, not the figures of two runs. The CPU
//! time is of the two devices together, without iperf3.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say where")]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/devices/host.rs"]
mod host;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/devices/wireguard_go.rs"]
mod wireguard_go;

use std::process::{Child, Command, Stdio};

use host::{Host, eventually, join, pair};
use wireguard_go::WireGuardGo;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (rounds, seconds) = (number(3), number(5));
    println!("{:<14} {:>9} {:>14}", "device", "Gbit/s", "CPU-s per GiB");
    for _ in 0..rounds {
        let (a, b) = pair();
        report("lattice", &a, &b, seconds, &[std::process::id()]);
        drop((a, b));

        let (a, b) = join(Host::without_device(1), Host::without_device(2));
        let (a, b) = (WireGuardGo::start(a), WireGuardGo::start(b));
        a.set_peer(&b.host, Some(b.endpoint()));
        b.set_peer(&a.host, Some(a.endpoint()));
        a.bring_up();
        b.bring_up();
        report("wireguard-go", &a.host, &b.host, seconds, &[a.id(), b.id()]);
    }
}

fn report(name: &str, a: &Host, b: &Host, seconds: u32, devices: &[u32]) {
    let _server = Server::start(b);
    let target = b.inner_v4().to_string();
    let cpu = || devices.iter().map(|id| cpu_seconds(*id)).sum::<f64>();
    let before = cpu();
    let output = a.inside.run(|| {
        Command::new("iperf3")
            .args(["--client", &target, "--format", "g", "--time", &seconds.to_string()])
            .output()
            .expect("needs iperf3")
    });
    let spent = cpu() - before;
    let text = String::from_utf8_lossy(&output.expect("the namespace stands").stdout).into_owned();
    let received = text.lines().find(|line| line.ends_with("receiver")).expect(&text);
    let fields: Vec<&str> = received.split_whitespace().collect();
    let unit = fields.iter().position(|field| *field == "Gbits/sec").expect(received);
    let rate: f64 = fields[unit - 1].parse().expect(received);
    let gibibytes = rate * 1e9 / 8.0 * f64::from(seconds) / f64::from(1 << 30);
    println!("{name:<14} {rate:>9.2} {:>14.2}", spent / gibibytes);
}

/// User and system time of a process (`proc(5)`, fields 14 and 15 of `stat`).
fn cpu_seconds(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the device runs");
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 =
        after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    // The kernel counts in hundredths for user space, whatever its own HZ.
    ticks as f64 / 100.0
}

struct Server(Child);

impl Server {
    fn start(host: &Host) -> Self {
        let address = host.inner_v4().to_string();
        let server = host.inside.run(|| {
            let mut command = Command::new("iperf3");
            command.args(["--server", "--one-off", "--bind", &address]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("needs iperf3")
        });
        let listening = || {
            let table = host.inside.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
            table.is_ok_and(|table| table.is_ok_and(|table| table.contains(":1451 ")))
        };
        let server = Self(server.expect("the namespace stands"));
        eventually("iperf3 to listen", listening);
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
