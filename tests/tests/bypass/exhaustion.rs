//! An agent that uses up flows, connections, ports and records: what was denied stays denied, and what is allowed goes on.

use std::{net::IpAddr, path::Path, time::Duration};

use lattice_audit::Entry;
use lattice_policy::Action;
use lattice_tests::{Lab, Packet, Process, Sniffer, agent, process::command, remains, sniffer};

use crate::{Enforcer, world};

const LIMIT: Duration = Duration::from_secs(240);
const PROGRAM: &str = include_str!("exhaustion.py");
/// Datagrams to ports that no rule names, and to ports that one names.
const DENIED: u64 = 20_000;
const ALLOWED: u64 = 20_000;
const WAYS: [&str; 4] = ["allowed-flows", "denied-flows", "connections", "ports"];

/// Says what it is told, to thousands at once.
const ECHO: &str = "
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
async def main():
    server = await asyncio.start_server(echo, '0.0.0.0', 8080, backlog=4096)
    print('serves', flush=True)
    await server.serve_forever()
asyncio.run(main())
";

#[test]
fn an_agent_that_uses_up_everything_gains_nothing_and_loses_only_its_own() {
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (_node, ip) = lab.up(&tool, "tool");
    let mut server = command(&tool.netns.path(), Path::new("python3"));
    server.args(["-c", ECHO]);
    let mut server = Process::spawn(server, "echo", lab.dir.path());
    server.wait_for("serves", LIMIT);
    let rules = [format!("tcp:{ip}/32:8080"), format!("udp:{ip}/32:10000-39999")];
    for enforcer in Enforcer::ALL {
        let _none = std::fs::remove_file(runner.dir.join("audit.jsonl"));
        let mut start = agent::start(&lab, &runner, "agent", &rules.each_ref().map(String::as_str));
        start.args(["--enforcer", enforcer.flag()]);
        start.args(["--agent-binary", "/usr/bin/python3", "--", "-c", PROGRAM, &ip.to_string()]);
        let canary = Sniffer::start(&tool.netns, move |packet: &Packet| packet.dst == IpAddr::from(ip));
        let out = Process::spawn(start, "agent", lab.dir.path()).finish(LIMIT);
        sniffer::settle();
        let seen = canary.finish();
        println!("{enforcer:?}:\n{}", out.stdout);
        assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
        let results = world::results(&out.stdout);
        let result = |name: &str| {
            let found = results.iter().find(|result| result.name == name);
            found.unwrap_or_else(|| panic!("{name} was not tried: {results:?}")).result.as_str()
        };
        assert_eq!(result("before"), "ok", "{}", out.stderr);
        for way in WAYS {
            assert_eq!(result(&format!("held-after-{way}")), "ok", "{enforcer:?}");
            assert_eq!(result(&format!("allowed-after-{way}")), "ok", "{enforcer:?}");
            for denied in ["denied", "datagram"] {
                let result = result(&format!("{denied}-after-{way}"));
                assert!(!["ok", "silence"].contains(&result), "{enforcer:?}: {denied} after {way}: {result}");
            }
        }
        let leaked: Vec<&Packet> = seen
            .iter()
            .filter(|packet| packet.src != packet.dst)
            .filter(|packet| packet.dst_port == 9090 || (40_000..60_000).contains(&packet.dst_port))
            .collect();
        assert!(
            leaked.is_empty(),
            "{enforcer:?}: {} packets: {:?}",
            leaked.len(),
            &leaked[..leaked.len().min(9)]
        );
        let allowed = seen.iter().filter(|packet| (10_000..30_000).contains(&packet.dst_port)).count();
        assert!(allowed > 1000, "{enforcer:?}: the canary is not blind: {allowed}");
        assert_counted(&runner, enforcer);
        remains::assert_none(&runner);
    }
}

/// Every flow is on record, or counted among those that are not: what was lost may have been allowed or denied.
fn assert_counted(runner: &lattice_tests::Host, enforcer: Enforcer) {
    let (mut told, mut denied, mut lost) = (0, 0, 0);
    for entry in lattice_audit::read(&runner.dir.join("audit.jsonl")).expect("the records") {
        match entry.expect("a record") {
            Entry::Flow(flow) => {
                told += 1;
                denied += u64::from(flow.action == Action::Deny);
            }
            Entry::Gap(gap) => lost += gap.lost,
        }
    }
    println!("{enforcer:?}: {told} flows on record, {denied} of them denied, {lost} verdicts lost");
    // What finds no room in the queue of the user-space device reaches no filter.
    if enforcer != Enforcer::Userspace {
        assert!(
            denied > 0 && told + lost >= DENIED + ALLOWED,
            "{enforcer:?}: {told} told, {denied} of them denied, {lost} lost"
        );
    }
}
