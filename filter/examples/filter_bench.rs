//! What a verdict costs, in nanoseconds a packet, by the number of rules. Beside each run stands what reading
//! the headers alone costs: of a reset that was denied nothing is asked but whether it is one.
//!
//! `cargo run --release -p lattice-filter --example filter_bench`
//!
//! Packets are IPv4, TCP, 60 bytes, of 512 flows in turn. Rules name scattered networks from /16 to /32 and several port
//! ranges each. The best of many short rounds counts: the machine does other things as well.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say where")]

use std::{hint::black_box, net::Ipv4Addr, time::Instant};

use ipnet::Ipv4Net;
use lattice_filter::Filter;
use lattice_policy::{Action, Direction, Policy, PortRange, Proto, Reason, RuleSpec, Table, Target};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);
const SECOND: u64 = 1_000_000_000;
const ROUNDS: usize = 100;
const FLOWS: u32 = 512;

fn main() {
    println!(
        "{:>7} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "rules", "parse only", "established", "new", "denied", "compile"
    );
    for rules in [1, 100, 10_000] {
        let policy = policy(rules);
        let began = Instant::now();
        let table = policy.compile();
        let mut filter = filter(&table);
        let compile = began.elapsed();

        let allowed: Vec<_> =
            (0..FLOWS).map(|n| packet(target(n, rules), 8080, 20_000 + n as u16, 0x10)).collect();
        let denied: Vec<_> =
            (0..FLOWS).map(|n| packet(target(n, rules), 25, 20_000 + n as u16, 0x02)).collect();
        let resets: Vec<_> =
            (0..FLOWS).map(|n| packet(target(n, rules), 8080, 20_000 + n as u16, 0x04)).collect();

        let parse = best(|| parse_only(&filter, &resets, 10));
        run(&mut filter, &allowed, 1, SECOND, Reason::RuleAllow);
        let established = best(|| run(&mut filter, &allowed, 10, SECOND, Reason::Established));
        // Each packet opens a flow, and from the 16,385th on another gives way.
        let mut opened = 0u32;
        let new = best(|| {
            let packets: Vec<_> = (0..1000)
                .map(|n| {
                    opened += 1;
                    let (to, from) = (8000 + (opened % 4000) as u16, 1000 + (opened / 4000) as u16);
                    packet(target(n % FLOWS, rules), to, from, 0x02)
                })
                .collect();
            run(&mut filter, &packets, 1, SECOND, Reason::RuleAllow)
        });
        let denied = best(|| run(&mut filter, &denied, 10, SECOND, Reason::DefaultDeny));
        println!(
            "{rules:>7} {parse:>9.1} ns {established:>9.1} ns {new:>9.1} ns {denied:>9.1} ns {compile:>12.2?}",
        );
    }
}

fn filter(table: &Table) -> Filter {
    let mut filter = Filter::new(vec![OWN.into()]);
    filter.apply(table, &[], 1);
    filter
}

/// Nanoseconds for each packet, events taken as they come.
fn run(filter: &mut Filter, packets: &[Vec<u8>], times: u32, now: u64, reason: Reason) -> f64 {
    let began = Instant::now();
    for _ in 0..times {
        for packet in packets {
            let decision = filter.judge(Direction::Egress, black_box(packet), now);
            assert_eq!(decision.reason, reason);
        }
        filter.take_events().for_each(drop);
    }
    began.elapsed().as_secs_f64() * 1e9 / (f64::from(times) * packets.len() as f64)
}

fn parse_only(filter: &Filter, packets: &[Vec<u8>], times: u32) -> f64 {
    let began = Instant::now();
    for _ in 0..times {
        for packet in packets {
            assert!(filter.refusal(black_box(packet), Reason::DefaultDeny).is_none());
        }
    }
    began.elapsed().as_secs_f64() * 1e9 / (f64::from(times) * packets.len() as f64)
}

fn best(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// An address that a rule names.
fn target(n: u32, rules: u32) -> Ipv4Addr {
    net(n % rules).network()
}

/// Scattered over the address space below the groups, without repetition.
fn net(n: u32) -> Ipv4Net {
    let spread = n.wrapping_mul(0x9E37_79B1) % 0xDF00_0000;
    Ipv4Net::new(Ipv4Addr::from_bits(spread), 16 + (n % 17) as u8).unwrap()
}

fn policy(rules: u32) -> Policy {
    let ports = [(80, 80), (443, 443), (8000, 12_000)].map(|(lo, hi)| PortRange { lo, hi }).to_vec();
    (0..rules).fold(Policy::new(1), |policy, n| {
        let target = Target::Net(net(n).into());
        policy.egress(
            Action::Allow,
            RuleSpec { proto: Proto::Any, target, ports: ports.clone(), text: String::new() },
        )
    })
}

fn packet(to: Ipv4Addr, port: u16, from: u16, flags: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 60, 0, 7, 0x40, 0, 64, 6, 0, 0];
    packet.extend(OWN.octets());
    packet.extend(to.octets());
    packet.extend(from.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    packet.resize(60, 0);
    packet
}
