//! What the kernel knows of processes, and what it does to datagrams.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use crate::host::Host;

/// User and system time of a process (`proc(5)`, fields 14 and 15 of `stat`).
pub(crate) fn cpu_seconds(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("the device runs");
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 =
        after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    // The kernel counts in hundredths for user space, whatever its own HZ.
    ticks as f64 / 100.0
}

/// The most memory that a process had, in MiB.
pub(crate) fn peak_memory(id: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("the device runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    peak.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") / 1024.0
}

/// Has this process's peak begin anew (`proc(5)`, `clear_refs`).
pub(crate) fn forget_peak_memory() {
    fs::write("/proc/self/clear_refs", "5").expect("needs root");
}

/// The first line of what a wireguard-go says of itself.
pub(crate) fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output().expect("needs wireguard-go");
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or(program).to_owned()
}

/// Drops so many of a hundred datagrams that come to a host by the underlay, each by itself.
pub(crate) fn lose(host: &Host, percent: u8) {
    host.underlay_ip(&["link", "set", "eth0", "gso_max_segs", "1"]);
    let rules = format!(
        "table inet loss {{
  chain arrive {{
    type filter hook prerouting priority -300;
    iifname \"eth0\" meta l4proto udp numgen random mod 100 < {percent} drop
  }}
}}
"
    );
    let nft = || Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn();
    let mut nft = host.underlay.run(nft).expect("the namespace stands").expect("needs nft");
    nft.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("nft reads");
    assert!(nft.wait().expect("nft").success());
}
