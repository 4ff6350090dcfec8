//! Flows that are open while what allowed them ends: a policy that becomes narrower, and the sandbox's own time in the workspace,
//! with nobody there who could say so but the clock, and the clock set back.

use std::{fs, net::IpAddr, path::Path, thread, time::Duration};

use lattice_tests::{
    Clock, Host, Lab, Packet, Process, Sniffer,
    lab::{overlay_ip, wait_until},
    process::command,
    remains, tools,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::Enforcer;

const LIMIT: Duration = Duration::from_secs(90);
const PROGRAM: &str = include_str!("flows.py");
/// Long enough for three sandboxes to start on a busy machine; renewed at half of it as long as there is somebody to ask.
const MEMBERSHIP: &str = "20s";

/// Says what it is told, by TCP and UDP. argv: ports.
const ECHO: &str = "
import socket, sys, threading
def stream(client):
    with client:
        while data := client.recv(100): client.sendall(data)
def streams(listener):
    while True: threading.Thread(target=stream, args=(listener.accept()[0],), daemon=True).start()
def datagrams(s):
    while True: s.sendto(*s.recvfrom(100))
for port in map(int, sys.argv[1:]):
    threading.Thread(target=streams, args=(socket.create_server(('', port)),)).start()
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('', port))
    threading.Thread(target=datagrams, args=(s,)).start()
print('serves', flush=True)
";

/// A program with open flows, in a sandbox or beside.
struct Holder(Process);

impl Holder {
    fn says(&self, line: &str) -> bool {
        self.0.output().0.lines().any(|said| said == line)
    }

    /// How the flow ended, if it did.
    fn ended(&self, target: &str) -> Option<String> {
        let begin = format!("{target} ended ");
        self.0.output().0.lines().find_map(|line| line.strip_prefix(&begin).map(str::to_owned))
    }

    /// Whether the flow is alive from now on.
    fn await_echo(&self, target: &str) {
        let line = format!("{target} holds");
        let count = || self.0.output().0.lines().filter(|said| *said == line).count();
        let before = count();
        wait_until(LIMIT, &line, || count() > before + 1);
    }

    /// Waits until the flow was refused, and others like it are.
    fn await_end(&self, target: &str) {
        wait_until(LIMIT, &format!("{target} to end"), || self.ended(target).is_some());
        let how = self.ended(target).unwrap_or_default();
        assert!(!["silence", "ECONNABORTED"].contains(&how.as_str()), "{}: {target}: {how}", self.0.name);
        let new = || {
            let out = self.0.output().0;
            let begin = format!("{target} new ");
            out.lines().filter_map(|line| line.strip_prefix(&begin).map(str::to_owned)).collect::<Vec<_>>()
        };
        wait_until(LIMIT, &format!("others like {target}"), || !new().is_empty());
        let wrong: Vec<String> =
            new().into_iter().filter(|how| ["ok", "silence"].contains(&how.as_str())).collect();
        assert!(wrong.is_empty(), "{}: {target}: {wrong:?}", self.0.name);
    }
}

fn sandbox(
    lab: &Lab,
    host: &Host,
    enforcer: Enforcer,
    clock: &Clock,
    rule: &str,
    targets: &[String],
) -> Holder {
    let token = host.dir.join("token");
    let text = lab.admin(&["token", "create", "--workspace", "demo", "--peer-ttl", MEMBERSHIP]);
    fs::write(&token, text).expect("the token's file");
    let mut start = lab.lattice(host);
    start.args(["sandbox", "start", "--mode", "gvisor", "--name", enforcer.flag(), "--egress-allow", rule]);
    start.args(["--enforcer", enforcer.flag(), "--token-file"]).arg(&token);
    start.arg("--audit-file").arg(host.dir.join("audit.jsonl")).arg("--agent-rootfs").arg(tools::rootfs());
    start.args(["--agent-binary", "/usr/bin/python3", "--", "-c", PROGRAM]).args(targets);
    clock.give(&mut start);
    Holder(Process::spawn(start, enforcer.flag(), lab.dir.path()))
}

#[test]
fn an_open_flow_ends_with_the_rule_and_with_the_membership_that_allowed_it() {
    let Some(clock) = Clock::new() else { return };
    let mut lab = Lab::start();
    let (tool, beside) = (lab.host(), lab.host());
    let runners: Vec<Host> = Enforcer::ALL.iter().map(|_| lab.host()).collect();
    let (_tool, ip) = lab.up_with(&tool, "tool", &[]);
    let (_beside, _) = lab.up(&beside, "beside");
    let mut server = command(&tool.netns.path(), Path::new("python3"));
    server.args(["-c", ECHO, "8080", "9090"]);
    let mut server = Process::spawn(server, "echo", lab.dir.path());
    server.wait_for("serves", LIMIT);
    let kept = format!("tcp:{ip}:8080");
    let cut = [format!("tcp:{ip}:9090"), format!("udp:{ip}:9090")];
    let targets: Vec<String> = std::iter::once(&kept).chain(&cut).cloned().collect();

    let mut twin = command(&beside.netns.path(), Path::new("python3"));
    twin.args(["-c", PROGRAM]).args(&targets);
    let twin = Holder(Process::spawn(twin, "twin", lab.dir.path()));
    let rule = format!("{ip}/32");
    let holders: Vec<Holder> = Enforcer::ALL
        .iter()
        .zip(&runners)
        .map(|(enforcer, host)| sandbox(&lab, host, *enforcer, &clock, &rule, &targets))
        .collect();
    for holder in holders.iter().chain([&twin]) {
        for target in &targets {
            wait_until(LIMIT, target, || holder.says(&format!("{target} holds")));
        }
    }
    let agents: Vec<IpAddr> = holders.iter().map(|holder| overlay_ip(&holder.0.output().1).into()).collect();
    let canary = || {
        let agents = agents.clone();
        Sniffer::start(&tool.netns, move |packet: &Packet| {
            agents.contains(&packet.src) && packet.dst == IpAddr::from(ip)
        })
    };

    let narrow = ["policy", "add", "web", "--workspace", "demo", "--selector", "kind=sandbox"];
    lab.admin(&[&narrow[..], &["--allow-egress", "tcp:{name=tool}:8080"]].concat());
    for holder in &holders {
        cut.iter().for_each(|target| holder.await_end(target));
        holder.await_echo(&kept);
    }
    let wire = canary();
    holders.iter().for_each(|holder| holder.await_echo(&kept));
    let late: Vec<Packet> = wire.finish().into_iter().filter(|packet| packet.dst_port == 9090).collect();
    assert!(late.is_empty(), "{late:?}");
    targets.iter().for_each(|target| twin.await_echo(target));
    for (holder, host) in holders.iter().zip(&runners) {
        assert_eq!(holder.ended(&kept), None, "{}", holder.0.name);
        for proto in ["tcp", "udp"] {
            assert_denied(host, proto, 9090);
        }
    }

    // SIGKILL: nats-server goes with it.
    drop(lab.take_latticed());
    clock.set(-3600);
    holders.iter().for_each(|holder| holder.await_end(&kept));
    let wire = canary();
    // As many refusals as an agent gets in that time. What a kernel says about late packets of the tool's is not the agent's.
    thread::sleep(Duration::from_secs(1));
    let late: Vec<Packet> = wire.finish().into_iter().filter(|packet| packet.dst_port != 0).collect();
    assert!(late.is_empty(), "{late:?}");
    targets.iter().for_each(|target| twin.await_echo(target));
    for (holder, host) in holders.into_iter().zip(&runners) {
        assert_denied(host, "tcp", 8080);
        holder.0.signal(Signal::SIGKILL);
        holder.0.finish(LIMIT);
        lab.run(host, &["doctor", "--fix"]);
        remains::assert_none(host);
    }
}

/// A verdict about it is on record, or will be within the time that a record takes.
fn assert_denied(host: &Host, proto: &str, port: u16) {
    let denied = || {
        let text = fs::read_to_string(host.dir.join("audit.jsonl")).unwrap_or_default();
        // The last line may be half written.
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut of_it = records.filter(|record| record["proto"] == proto && record["dstPort"] == port);
        of_it.any(|record| record["action"] == "deny" && record["reason"] == "default-deny")
    };
    wait_until(LIMIT, &format!("a record of {proto} {port}"), denied);
}
