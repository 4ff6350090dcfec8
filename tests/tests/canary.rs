//! What really leaves an agent that floods denied destinations, seen on the wires and not in our own log: nothing, at
//! no time of its life.

use std::{net::IpAddr, time::Duration};

use lattice_overlay::Netns;
use lattice_tests::{
    Host, Lab, Packet, Process, Sniffer, agent, lab::overlay_ip, lab::wait_until, remains, sniffer,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const WIREGUARD: u16 = 51820;

/// Its first action is to send where it may not. `argv`: the tool, the hub, the runner. Deaf to signals.
const FLOOD: &str = r"
import socket, sys, signal
for s in (1, 2, 3, 15): signal.signal(s, signal.SIG_IGN)
tool, hub, runner = sys.argv[1:]
def udp(family, to):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        try: s.sendto(b'canary', to)
        except OSError: pass
def tcp(family, to):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.setblocking(False)
        try: s.connect(to)
        except OSError: pass
n = 0
while True:
    n += 1
    for host in (tool, hub, runner, '10.42.0.1', '10.42.255.254', '8.8.8.8', '169.254.169.254', '224.0.0.251', '255.255.255.255'):
        for port in (53, 8079, 8080, 9090, 4222, 51820, n % 60000 + 1):
            udp(socket.AF_INET, (host, port))
            if (host, port) != (tool, 8080): tcp(socket.AF_INET, (host, port))
    for host in ('2001:db8::1', 'fe80::1%wg0', 'ff02::1', '::ffff:8.8.8.8'):
        udp(socket.AF_INET6, (host, 53))
        tcp(socket.AF_INET6, (host, 443))
    if n % 5 == 1:
        with socket.socket() as s:
            s.settimeout(2)
            try:
                s.connect((tool, 8080))
                print('round', n, flush=True)
            except OSError as e: print('alone', n, flush=True)
";

struct Field {
    lab: Lab,
    tool: Host,
    runner: Host,
    tool_ip: std::net::Ipv4Addr,
    _parts: Vec<Process>,
    wires: Vec<Sniffer>,
}

impl Field {
    fn new() -> Self {
        let mut lab = Lab::start();
        let (tool, runner) = (lab.host(), lab.host());
        let (node, tool_ip) = lab.up(&tool, "tool");
        let parts = vec![node, lab.serve_http(&tool, 8080), lab.serve_http(&tool, 9090)];
        let (of_tool, of_runner) = (IpAddr::from(tool.address), IpAddr::from(runner.address));
        let of_hub = IpAddr::from([192, 168, 50, 1]);
        // The hosts' own business: the tunnel, NATS and HTTP of the control plane.
        let business = move |packet: &Packet| {
            let control = |at: IpAddr, port| at == of_hub && [8080, 4222].contains(&port);
            let tunnel = packet.proto == UDP && packet.src_port == WIREGUARD && packet.dst_port == WIREGUARD;
            let api = packet.proto == TCP
                && (control(packet.dst, packet.dst_port) || control(packet.src, packet.src_port));
            let hosts = [of_tool, of_runner, of_hub];
            // Such as port unreachable, for what the tunnel's other end still sends to a killed one.
            let icmp = packet.proto == ICMP && hosts.contains(&packet.dst);
            // A host's kernel says which groups it is in; the agent's packets have the agent's address.
            let groups = packet.proto == IGMP;
            // The agent has no link-local address.
            let link_local =
                matches!(packet.src, IpAddr::V6(src) if src.is_unicast_link_local() || src.is_unspecified());
            packet.src.is_loopback()
                || link_local
                || hosts.contains(&packet.src) && (tunnel || api || icmp || groups)
        };
        let on_wire = move |packet: &Packet| !business(packet);
        // Behind the tunnel, at the only peer: anything of the overlay but the tool's own replies.
        let at_tool = move |packet: &Packet| packet.dst == IpAddr::from(tool_ip) && !packet.src.is_loopback();
        let wires = vec![Sniffer::start(lab.hub(), on_wire), Sniffer::start(&tool.netns, at_tool)];
        Self { lab, tool, runner, tool_ip, _parts: parts, wires }
    }

    fn flood(&self, rules: &[&str]) -> Process {
        let mut command = agent::start(&self.lab, &self.runner, "agent", rules);
        command.args(["--agent-binary", "/usr/bin/python3", "--", "-c", FLOOD]);
        command.args([self.tool_ip.to_string(), "192.168.50.1".into(), self.runner.address.to_string()]);
        let mut process = Process::spawn(command, "agent", self.lab.dir.path());
        process.wait_for("round 1\n", LIMIT);
        process
    }

    fn rule(&self) -> String {
        format!("tcp:{}/32:8080", self.tool_ip)
    }

    /// What was seen and should not have been; how many packets of the allowed flow.
    fn leaked(&mut self) -> (Vec<Packet>, usize) {
        sniffer::settle();
        let seen: Vec<Packet> = self.wires.drain(..).flat_map(Sniffer::finish).collect();
        let tool = IpAddr::from(self.tool_ip);
        let allowed = |packet: &Packet| packet.dst == tool && packet.proto == TCP && packet.dst_port == 8080;
        let (allowed, leaked): (Vec<Packet>, Vec<Packet>) = seen.into_iter().partition(allowed);
        (leaked, allowed.len())
    }

    fn assert_tight(&mut self) {
        let (leaked, allowed) = self.leaked();
        assert!(
            leaked.is_empty(),
            "{} packets left unpoliced: {:?}",
            leaked.len(),
            &leaked[..leaked.len().min(20)]
        );
        assert!(allowed > 0, "the sniffer saw the allowed flow");
    }

    fn wait_until_dead(&self) {
        let needle = self.runner.dir.join("run").display().to_string();
        wait_until(LIMIT, "every process to be gone", || remains::processes(&needle).is_empty());
    }
}

#[test]
fn nothing_leaves_from_the_first_instant_to_the_end_of_a_stop() {
    let mut field = Field::new();
    let mut process = field.flood(&[&field.rule()]);
    process.wait_for("round 21\n", LIMIT);
    process.signal(Signal::SIGTERM);
    // Deaf to it: it floods on until the second.
    let begun = process.output().0.lines().count();
    wait_until(LIMIT, "more rounds", || process.output().0.lines().count() > begun + 2);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.finish(LIMIT).code, 137);
    remains::assert_none(&field.runner);
    field.assert_tight();
}

#[test]
fn nothing_leaves_when_the_supervisor_is_killed() {
    let mut field = Field::new();
    let mut process = field.flood(&[&field.rule()]);
    process.wait_for("round 11\n", LIMIT);
    process.signal(Signal::SIGKILL);
    assert_eq!(process.finish(LIMIT).code, 137);
    field.wait_until_dead();
    field.assert_tight();
    field.lab.run(&field.runner, &["doctor", "--fix"]);
    remains::assert_none(&field.runner);
}

#[test]
fn nothing_leaves_while_the_control_plane_is_gone() {
    let mut field = Field::new();
    let mut process = field.flood(&[&field.rule()]);
    // SIGKILL: nats-server goes with it.
    drop(field.lab.take_latticed());
    let begun = process.output().0.lines().count();
    wait_until(LIMIT, "more rounds", || process.output().0.lines().count() > begun + 4);
    for _ in 0..2 {
        process.signal(Signal::SIGTERM);
        process.wait_for("passed on", LIMIT);
    }
    process.finish(LIMIT);
    remains::assert_none(&field.runner);
    field.assert_tight();
}

/// The other tests would pass as well if the sniffers were blind.
#[test]
fn the_sniffers_see_what_a_wider_rule_lets_out() {
    let mut field = Field::new();
    let process = field.flood(&[&format!("{}/32", field.tool_ip)]);
    drop(process);
    field.wait_until_dead();
    field.lab.run(&field.runner, &["doctor", "--fix"]);
    remains::assert_none(&field.runner);
    let (leaked, _) = field.leaked();
    let to = |proto, port| leaked.iter().any(|p| (p.proto, p.dst_port) == (proto, port));
    assert!(to(TCP, 9090) && to(UDP, 8080) && to(UDP, 53), "{leaked:?}");

    let tool_to_hub = Sniffer::start(field.lab.hub(), |packet| packet.dst_port == 4223);
    field.lab.on(&field.tool, "curl", &["-s", "-m", "1", "http://192.168.50.1:4223/"]);
    assert!(!tool_to_hub.finish().is_empty(), "the hub's sniffer is not blind");
}

/// An agent behind the policy has a loopback, too: it is its own, and there is nothing on it but the resolver.
#[test]
fn the_hosts_loopback_is_out_of_reach_and_nobody_reaches_the_agents() {
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (_node, _) = lab.up(&tool, "tool");
    let _secret = lab.serve_http(&runner, 7777);
    let probes = [
        "tcp:127.0.0.1:7777",
        "tcp:[::1]:7777",
        "tcp:0.0.0.0:7777",
        "name:localhost.example.com",
        "name:latticed",
    ];
    let mut command = agent::start(&lab, &runner, "agent", &[]);
    command.args(["--agent-binary", "/usr/local/bin/demo-agent", "--"]).args(probes);
    let out = Process::spawn(command, "agent", lab.dir.path()).finish(LIMIT);
    for attempt in agent::attempts(&out.stdout) {
        assert_ne!(attempt.result, "ok", "{attempt:?}");
    }

    let listen = "import socket\nt=socket.socket();t.bind(('',7000));t.listen();t.settimeout(30)\nu=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);u.bind(('',7000));u.settimeout(4)\nprint('listening',flush=True)\ntry: print('udp', u.recv(9))\nexcept OSError: print('nothing')";
    let mut command = agent::start(&lab, &runner, "agent", &[]);
    command.args(["--agent-binary", "/usr/bin/python3", "--", "-c", listen]);
    let mut listening = Process::spawn(command, "agent", lab.dir.path());
    listening.wait_for("listening", LIMIT);
    let address = overlay_ip(&listening.output().1);
    let inside: Netns = Netns::open(&netns(&runner)).unwrap();
    let seen = Sniffer::start(&inside, move |packet| packet.src == IpAddr::from(address));
    let send = format!(
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor _ in range(5): s.sendto(b'x',('{address}',7000))"
    );
    assert_eq!(lab.on(&tool, "python3", &["-c", &send]).code, 0);
    lab.on(&tool, "curl", &["-s", "-m", "1", &format!("http://{address}:7000/")]);
    let out = listening.finish(LIMIT);
    assert!(out.stdout.contains("nothing"), "{}", out.stdout);
    drop(inside);
    let answers = seen.finish();
    assert!(answers.iter().all(|packet| packet.proto != TCP), "no handshake: {answers:?}");
    remains::assert_none(&runner);
}

/// The agent's namespace, as `lattice status` names it.
fn netns(host: &Host) -> std::path::PathBuf {
    let state = std::fs::read(host.dir.join("run/sandboxes/agent/state.json")).expect("a running sandbox");
    let state: serde_json::Value = serde_json::from_slice(&state).expect("a running sandbox");
    state["netns"].as_str().expect("a running sandbox").into()
}
