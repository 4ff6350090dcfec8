//! What the policy program costs, beside no policy, nftables and iptables: `make bench-egress` (as root).
//!
//! Each row of the table has its own pair of network namespaces joined by a veth, an agent's and its peer's, all set up at the
//! start. Then, in rounds, each measure is taken of every row in turn, so that what else the machine does falls on all of them.
//! Only ratios within a round are compared. `--quick` takes half a minute in place of three.
//!
//! All rows enforce the same policy: the agent reaches 10.99.0.0/16 and as many other networks as are needed, and is refused at once
//! elsewhere; nobody reaches the agent. Where rules are a list, the one that fits is the last.

mod filter;
mod lab;
mod measure;
mod report;

use std::{
    error::Error,
    time::{Duration, Instant},
};

use filter::Kind;
use lab::Lab;
use report::Results;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const FEW_TO_MANY: &[usize] = &[1, 100, 10_000];
const LISTS: &[usize] = &[100, 10_000];
const TIME: Duration = Duration::from_secs(165);
const QUICK: Duration = Duration::from_secs(20);
/// Fewer make no median.
const MIN_ROUNDS: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let time = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => TIME,
        ["--quick"] => QUICK,
        _ => return Err("usage: egress_bench [--quick]".into()),
    };
    lab::hide_mounts()?;
    let mut labs = vec![Lab::new(Kind::None, 0)?];
    for kind in
        [Kind::Ebpf, Kind::EbpfEager, Kind::NftSet, Kind::NftList, Kind::IptablesNft, Kind::IptablesLegacy]
    {
        let rules = match kind {
            Kind::Ebpf | Kind::NftSet => FEW_TO_MANY,
            Kind::EbpfEager => &FEW_TO_MANY[..1],
            _ => LISTS,
        };
        for &rules in rules {
            match Lab::new(kind, rules) {
                Ok(lab) => labs.push(lab),
                Err(error) => println!("SKIPPED: {kind} with {rules} rules: {error}"),
            }
        }
    }
    let mut results = Results::new(&labs);
    let started = Instant::now();
    while results.rounds() < MIN_ROUNDS || started.elapsed() < time {
        round(&mut labs, &mut results)?;
    }
    // Last, because the kernel counts at a price.
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime)?;
    for (lab, row) in labs.iter().zip(&mut results.rows).filter(|(lab, _)| lab.kind == Kind::Ebpf) {
        for _ in 0..MIN_ROUNDS {
            row.program.push(measure::program_time(lab)?);
        }
    }
    results.print(started.elapsed());
    Ok(())
}

/// Every measure of every row. Each round begins with another row.
fn round(labs: &mut [Lab], results: &mut Results) -> Result<()> {
    let first = results.rounds() % labs.len();
    let order: Vec<usize> = (0..labs.len()).map(|i| (first + i) % labs.len()).collect();
    for &i in &order {
        results.rows[i].tcp.push(measure::tcp_stream(&labs[i])?);
    }
    for &i in &order {
        results.rows[i].udp.push(measure::udp_stream(&labs[i], true)?);
    }
    for &i in &order {
        results.rows[i].udp_one_way.push(measure::udp_stream(&labs[i], false)?);
    }
    for &i in &order {
        results.rows[i].flows.push(measure::new_flows(&labs[i])?);
    }
    for &i in &order {
        measure::refused_tcp(&labs[i], &mut results.rows[i].refused_tcp)?;
        measure::refused_udp(&labs[i], &mut results.rows[i].refused_udp)?;
    }
    for &i in &order {
        results.rows[i].switch.extend(labs[i].switch()?);
    }
    Ok(())
}
