//! What the nftables enforcer costs: `cargo run --release -p lattice-nftables --example nft_bench -- 5` (as root).
//!
//! For 1, 100 and 10,000 rules: the time to put a policy in force, the processor's time of that (ours and that of `nft`), the
//! time to pin an address, and what a UDP datagram of a known flow and of a new flow costs its sender, beside the same
//! datagrams without a table. In a network namespace of its own; nothing stays.

use std::{
    error::Error,
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    sync::Arc,
    time::Instant,
};

use lattice_nftables::{Nftables, Options};
use lattice_policy::{Action, Match, Pin, Policy, PortRange, Proto, RuleId, Table, parse_rule};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        resource::{UsageWho, getrusage},
        time::{TimeVal, TimeValLike},
    },
};

const DATAGRAMS: u32 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(5);
    println!("median of {rounds}            apply ms   CPU ms   pin ms   known ns   new ns");
    let mut rows: Vec<(String, Vec<[f64; 5]>)> = Vec::new();
    for round in 0..rounds {
        for (n, rules) in [None, Some(1), Some(100), Some(10_000)].into_iter().enumerate() {
            let name = rules.map_or("no table".into(), |rules| format!("{rules} rules"));
            let measured = measured(rules)?;
            match rows.get_mut(n) {
                Some((_, row)) => row.push(measured),
                None => rows.push((name, vec![measured])),
            }
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    for (name, row) in rows {
        let median = |column: usize| {
            let mut values: Vec<f64> = row.iter().map(|row| row[column]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let [apply, cpu, pin, known, new] = [0, 1, 2, 3, 4].map(median);
        println!("{name:<20} {apply:>10.1} {cpu:>8.1} {pin:>8.1} {known:>10.0} {new:>8.0}");
    }
    Ok(())
}

fn measured(rules: Option<u32>) -> Result<[f64; 5], Box<dyn Error>> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    for line in [
        "link add wg0 type veth peer name other",
        "link set wg0 up",
        "link set other up",
        "addr add 10.42.0.2/24 dev wg0",
        "neigh add 10.42.0.1 dev wg0 lladdr 02:00:00:00:00:01",
        "route add default via 10.42.0.1 dev wg0",
    ] {
        let done = Command::new("ip").args(line.split(' ')).status()?;
        assert!(done.success(), "ip {line}");
    }
    let (mut apply, mut cpu, mut pin) = (0.0, 0.0, 0.0);
    let mut held = None;
    if let Some(rules) = rules {
        let enter = Arc::new(|work: &mut (dyn FnMut() + Send)| {
            work();
            Ok(())
        });
        let (table, log_group) = (Options::TABLE.into(), Options::LOG_GROUP);
        let own = vec!["10.42.0.2".parse()?];
        let mut nftables =
            Nftables::load(&Options { enter, own, tied: Vec::new(), confined: None, table, log_group })?;
        let table = policy(rules)?;
        let (at, before) = (Instant::now(), processor_ms()?);
        nftables.apply(&table, &[], 1)?;
        (apply, cpu) = (at.elapsed().as_secs_f64() * 1e3, processor_ms()? - before);
        let web = Match {
            proto: Proto::Tcp,
            ports: Some(PortRange { lo: 443, hi: 443 }),
            action: Action::Allow,
            rule: RuleId(rules + 1),
        };
        let at = Instant::now();
        nftables.pin(&[Pin { address: "192.0.2.1".parse()?, matches: vec![web], until_ns: u64::MAX }])?;
        pin = at.elapsed().as_secs_f64() * 1e3;
        held = Some(nftables);
    }
    let socket = UdpSocket::bind("10.42.0.2:0")?;
    let known = nanoseconds(|_| Ipv4Addr::new(11, 0, 0, 1), &socket)?;
    let new = nanoseconds(|n| Ipv4Addr::from(0x0B00_0100 + n), &socket)?;
    drop(held);
    Ok([apply, cpu, pin, known, new])
}

/// Every datagram of the bench is allowed, by the last rule.
fn policy(rules: u32) -> Result<Table, Box<dyn Error>> {
    let mut policy = Policy::new(1);
    for n in 1..rules {
        let net = Ipv4Addr::from(0x0C00_0000 + 3 * n);
        policy = policy.egress(Action::Allow, parse_rule(&format!("tcp:{net}/32:{}", 1 + n % 1000))?);
    }
    Ok(policy.egress(Action::Allow, parse_rule("udp:11.0.0.0/8:9")?).compile())
}

fn processor_ms() -> nix::Result<f64> {
    let both = [getrusage(UsageWho::RUSAGE_SELF)?, getrusage(UsageWho::RUSAGE_CHILDREN)?];
    let milliseconds = |time: TimeVal| time.num_microseconds() as f64 / 1e3;
    Ok(both.iter().map(|usage| milliseconds(usage.user_time()) + milliseconds(usage.system_time())).sum())
}

fn nanoseconds(to: impl Fn(u32) -> Ipv4Addr, socket: &UdpSocket) -> std::io::Result<f64> {
    let at = Instant::now();
    for n in 0..DATAGRAMS {
        socket.send_to(b"?", (to(n), 9))?;
    }
    Ok(at.elapsed().as_secs_f64() * 1e9 / f64::from(DATAGRAMS))
}
