//! `lattice ping`: whether a peer answers, how fast, by which path, and why not by a direct one.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use lattice_bootstrap::{
    Failure, Kind, Listed, Role,
    control::{self, PeerReport},
};
use lattice_overlay::Netns;

use crate::{
    args::{Global, Ping},
    icmp::Echo,
    output, peers,
    places::{self, Found},
};

/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn run(global: &Global, args: &Ping) -> Result<ExitCode, Failure> {
    let Found { root, peer: here } = chosen(global, args.from.as_deref())?;
    let asked = |report: &PeerReport| {
        let addresses = [report.address, report.address6].into_iter().flatten();
        report.name == args.peer || addresses.into_iter().any(|address| Ok(address) == args.peer.parse())
    };
    let look = || -> Result<PeerReport, Failure> {
        let report = control::report(&root, here.role, &here.name)?;
        let found = report.overlay.peers.into_iter().find(asked);
        found.ok_or_else(|| {
            let text = format!(
                "{} has no peer {:?}: `lattice status {}` lists those it has",
                here.name, args.peer, here.name
            );
            Failure::new(Kind::Input, text)
        })
    };
    let by_ipv6 = args.ipv6 || args.peer.parse::<Ipv6Addr>().is_ok();
    let found = look()?;
    let Some(address) = (if by_ipv6 { found.address6 } else { found.address }) else {
        let version = if by_ipv6 { "IPv6" } else { "IPv4" };
        return Err(Failure::new(Kind::Input, format!("{} has no {version} address", args.peer)));
    };
    let mut echo = socket(&here, address)?;
    let mut answered = 0;
    for number in 0..args.count {
        let begun = Instant::now();
        match echo.ask(number, args.timeout()) {
            Ok(time) => {
                answered += 1;
                let by = look()?;
                let milliseconds = time.as_secs_f64() * 1e3;
                output::print(&format!("{address}: {milliseconds:.2} ms, {}", described(&by)));
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                output::print(&format!("{address}: no answer, {}", described(&look()?)));
            }
            Err(error) => return Err(Failure::new(Kind::Kernel, format!("cannot ping {address}: {error}"))),
        }
        if number + 1 < args.count {
            thread::sleep(INTERVAL.saturating_sub(begun.elapsed()));
        }
    }
    output::print(&format!("{answered} of {} answered", args.count));
    Ok(if answered > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn described(peer: &PeerReport) -> String {
    let mut text = format!("path {}", peers::path(peer));
    if let Some(endpoint) = peer.endpoint {
        text.push_str(&format!(" {endpoint}"));
    }
    if let Some(why) = &peer.why_not_direct {
        text.push_str(&format!(" ({why})"));
    }
    text
}

/// Who asks: the one that was named, or the only one that runs here.
fn chosen(global: &Global, from: Option<&str>) -> Result<Found, Failure> {
    let running =
        places::list(global)?.into_iter().filter(|found| found.peer.alive && found.peer.status.is_some());
    let mut running: Vec<_> =
        running.filter(|found| from.is_none_or(|name| found.peer.name.as_str() == name)).collect();
    match (running.len(), from) {
        (1, _) => Ok(running.remove(0)),
        (0, Some(name)) => Err(Failure::new(
            Kind::Input,
            format!("no {name:?} runs on this host; `lattice status` lists those that do"),
        )),
        (0, None) => Err(Failure::new(Kind::Input, "nothing runs on this host: start with `lattice up`")),
        _ => Err(Failure::new(Kind::Input, "several run on this host: choose one with --from NAME")),
    }
}

/// In the namespace of the one that asks, so that a sandbox's policy applies.
fn socket(here: &Listed, to: IpAddr) -> Result<Echo, Failure> {
    let netns = here.status.as_ref().and_then(|status| status.netns.as_deref());
    if here.role == Role::Sandbox && netns.is_none() {
        let text = format!(
            "{} runs in pod mode, whose network is in its own process: nothing else can send by it; ping from a node or the other peer",
            here.name
        );
        return Err(Failure::new(Kind::Input, text));
    }
    let opened = match netns {
        Some(path) => Netns::open(path).and_then(|netns| netns.run(|| Echo::open(to))?),
        None => Echo::open(to),
    };
    opened.map_err(|error| {
        Failure::new(Kind::Privilege, format!("cannot open an ICMP socket: {error}; run as root"))
    })
}
