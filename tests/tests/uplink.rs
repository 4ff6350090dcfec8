//! Destinations outside the overlay: reached where a rule names them, by NAT; everything beside them is refused and on
//! record, and the host stays as it was.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use lattice_tests::{Attempt, Host, Lab, Output, Process, agent, lab::wait_until, process, remains};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const REFUSED: [&str; 3] = ["EPERM", "ECONNREFUSED", "EHOSTUNREACH"];
/// Addresses of the server, as of the Internet.
const SERVER: &str = "203.0.113.7";
const NEIGHBOUR: &str = "203.0.113.8";
const SERVER_6: &str = "2001:db8:7::7";
const PORT: u16 = 8443;

/// A runner whose way to everything else is the server. No overlay peers are needed.
struct Field {
    lab: Lab,
    server: Host,
    runner: Host,
    _services: [Process; 2],
}

impl Field {
    fn new() -> Self {
        let mut lab = Lab::start();
        let (server, runner) = (lab.host(), lab.host());
        let own = [SERVER, NEIGHBOUR].map(|ip| format!("addr add {ip}/32 dev lo"));
        let via = format!("route add default via {}", server.address);
        for (host, command) in [
            (&server, own[0].as_str()),
            (&server, &own[1]),
            (&server, &format!("addr add {SERVER_6}/128 dev lo")),
            (&server, "addr add 2001:db8:50::1/64 dev eth0 nodad"),
            (&runner, "addr add 2001:db8:50::2/64 dev eth0 nodad"),
            (&runner, &via),
            (&runner, "-6 route add default via 2001:db8:50::1"),
        ] {
            let words: Vec<&str> = command.split_whitespace().collect();
            let out = lab.on(host, "ip", &words);
            assert_eq!(out.code, 0, "ip {command}: {}", out.stderr);
        }
        // The lab takes after the machine; strict filters must be no hindrance.
        for setting in ["forwarding=0", "rp_filter=1"] {
            let out = lab.on(&runner, "sysctl", &["-qw", &format!("net.ipv4.conf.all.{setting}")]);
            assert_eq!(out.code, 0, "{}", out.stderr);
        }
        let services = [PORT, PORT + 1].map(|port| serve(&lab, &server, port));
        Self { lab, server, runner, _services: services }
    }

    /// A sandbox on the runner with credentials of its own, still without an agent binary.
    fn start(&self, name: &str, rules: &[&str]) -> Command {
        let home = self.runner.dir.join(name);
        fs::create_dir_all(&home).expect("a directory");
        let mut command = self.lab.lattice(&self.runner);
        command.args(["sandbox", "start", "--mode", "gvisor", "--name", name, "--audit-file"]);
        command.arg(home.join("audit.jsonl")).env("LATTICE_CONFIG_DIR", home.join("etc"));
        command.arg("--agent-rootfs").arg(lattice_tests::tools::rootfs());
        for rule in rules {
            command.args(["--egress-allow", rule]);
        }
        if !home.join("etc/sandbox-credentials.json").exists() {
            command.arg("--token-file").arg(self.lab.token_file(&self.runner));
        }
        command
    }

    fn finish(&self, command: Command) -> Output {
        Process::spawn(command, "agent", self.lab.dir.path()).finish(LIMIT)
    }

    fn probe(&self, name: &str, rules: &[&str], probes: &[String]) -> (Vec<Attempt>, Output) {
        let mut command = self.start(name, rules);
        command.args(["--agent-binary", "/usr/local/bin/demo-agent", "--"]).args(probes);
        let out = self.finish(command);
        assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
        (agent::attempts(&out.stdout), out)
    }

    /// A sandbox that visits the server again and again, and is ready.
    fn visitor(&self, name: &str, rules: &[&str]) -> Process {
        let mut command = self.start(name, rules);
        let script = format!(
            "n=0; while :; do n=$((n+1)); curl -sf -m 5 -o /dev/null http://{SERVER}:{PORT}/ && echo visit $n; sleep 0.1; done"
        );
        command.args(["--agent-binary", "/bin/sh", "--", "-c", &script]);
        let mut process = Process::spawn(command, name, self.lab.dir.path());
        process.wait_for("visit 1\n", LIMIT);
        process
    }

    fn records(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.runner.dir.join(name).join("audit.jsonl")).expect("the records");
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    fn on_runner(&self, program: &str, args: &[&str]) -> String {
        let out = self.lab.on(&self.runner, program, args);
        assert_eq!(out.code, 0, "{program} {args:?}: {}", out.stderr);
        out.stdout
    }

    /// What uplinks have made of the runner.
    fn traces(&self) -> Vec<String> {
        let tables = self.on_runner("nft", &["list", "tables"]);
        let mut found: Vec<String> =
            tables.lines().filter(|line| line.contains("lattice")).map(str::to_owned).collect();
        let links = self.on_runner("ip", &["-o", "link"]);
        found.extend(links.lines().filter(|line| line.contains("lattice-")).map(str::to_owned));
        for setting in ["ipv4.conf.eth0.forwarding", "ipv6.conf.eth0.force_forwarding"] {
            let out = self.lab.on(&self.runner, "sysctl", &["-n", &format!("net.{setting}")]);
            if out.stdout.trim() == "1" {
                found.push(setting.into());
            }
        }
        found
    }

    fn assert_clean(&self) {
        remains::assert_none(&self.runner);
        assert_eq!(self.traces(), Vec::<String>::new());
    }
}

fn serve(lab: &Lab, host: &Host, port: u16) -> Process {
    let mut server = process::command(&host.netns.path(), Path::new("python3"));
    server.args(["-m", "http.server", "--bind", "::", &port.to_string(), "--directory"]).arg(&host.dir);
    let service = Process::spawn(server, "http", lab.dir.path());
    wait_until(LIMIT, "the HTTP service", || {
        host.netns.run(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).unwrap_or(false)
    });
    service
}

/// `command` in a mount namespace after `setup`.
fn after(command: &Command, setup: &str) -> Command {
    let mut new = Command::new("unshare");
    new.args(["--mount", "sh", "-c", &format!("{setup} && exec \"$@\""), "sh"]);
    new.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => new.env(name, value),
            None => new.env_remove(name),
        };
    }
    new
}

/// Whether this kernel forwards IPv6 for single links.
fn has_ipv6() -> bool {
    let has = Path::new("/proc/sys/net/ipv6/conf/lo/force_forwarding").exists();
    if !has {
        println!("SKIPPED: IPv6 uplinks: this kernel has no force_forwarding (Linux 6.17)");
    }
    has
}

#[test]
fn a_rule_outside_the_overlay_is_reached_and_nothing_beside_it() {
    let field = Field::new();
    let mut allowed = vec![format!("http:{SERVER}:{PORT}")];
    if has_ipv6() {
        allowed.push(format!("http:[{SERVER_6}]:{PORT}"));
    }
    let denied = [
        format!("tcp:{SERVER}:{}", PORT + 1),
        format!("tcp:{NEIGHBOUR}:{PORT}"),
        format!("udp:{SERVER}:{PORT}"),
        format!("tcp:{}:{PORT}", field.server.address),
        format!("tcp:{}:22", field.runner.address),
        format!("tcp:[{SERVER_6}]:{}", PORT + 1),
        "tcp:10.42.77.77:80".into(),
        "tcp:169.254.169.254:80".into(),
    ];
    let rules = [format!("tcp:{SERVER}/32:{PORT}"), format!("tcp:[{SERVER_6}/128]:{PORT}")];
    let probes: Vec<String> = allowed.iter().chain(&denied).cloned().collect();
    let (attempts, out) = field.probe("a", &[&rules[0], &rules[1]], &probes);
    for attempt in &attempts {
        if allowed.contains(&attempt.probe) {
            assert_eq!(attempt.result, "ok", "{attempt:?}\n{}", out.stderr);
        } else {
            assert!(REFUSED.contains(&attempt.result.as_str()), "at once, not hung: {attempt:?}");
        }
    }
    assert_eq!(attempts.len(), probes.len());

    let records = field.records("a");
    for target in &denied {
        let (host, port) = target.split_once(':').unwrap().1.rsplit_once(':').unwrap();
        let host = host.trim_matches(['[', ']']);
        let found = records.iter().any(|record| {
            record["dstIP"] == host
                && record["dstPort"].as_u64() == port.parse().ok()
                && record["action"] == "deny"
        });
        assert!(found, "no record of {target}: {records:#?}");
    }
    let allows = records.iter().filter(|record| record["action"] == "allow");
    let mut by: Vec<&str> = allows.map(|record| record["rule"].as_str().unwrap()).collect();
    by.sort_unstable();
    by.dedup();
    assert_eq!(by, rules.iter().take(allowed.len()).collect::<Vec<_>>());
    // Nothing that the agent did not do: neither IGMP nor neighbour discovery of the link.
    let strange = records.iter().find(|record| record["reason"] == "multicast");
    assert_eq!(strange, None);
    field.assert_clean();
}

/// Connects from its address on the uplink, then from its address on the overlay.
const FROM_EACH_ADDRESS: &str = "
import errno, json, socket, sys
server = (sys.argv[1], int(sys.argv[2]))
def source(to):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect((to, 9))
        return asked.getsockname()[0]
for by, to in ('uplink', server[0]), ('overlay', '10.42.77.77'):
    try:
        socket.create_connection(server, 20, (source(to), 0)).close()
        result = 'ok'
    except OSError as error:
        result = errno.errorcode.get(error.errno, 'timeout')
    print(json.dumps({'probe': by, 'result': result, 'detail': source(to)}))
";

#[test]
fn from_its_overlay_address_an_agent_sends_nothing_by_the_uplink() {
    let field = Field::new();
    let rule = format!("tcp:{SERVER}/32:{PORT}");
    let mut command = field.start("a", &[&rule]);
    command.args(["--agent-binary", "/usr/bin/python3", "--", "-c", FROM_EACH_ADDRESS, SERVER]);
    command.arg(PORT.to_string());
    let out = field.finish(command);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    let attempts = agent::attempts(&out.stdout);
    let [uplink, overlay] = &attempts[..] else { panic!("{}", out.stdout) };
    assert_eq!(uplink.result, "ok", "{}", out.stderr);
    assert!(REFUSED.contains(&overlay.result.as_str()), "at once, not hung: {overlay:?}");
    let records = field.records("a");
    let about = |attempt: &Attempt| {
        let ours = records.iter().find(|r| r["srcIP"] == attempt.detail && r["dstIP"] == SERVER);
        ours.map(|record| [record["action"].clone(), record["reason"].clone()])
    };
    assert_eq!(about(uplink), Some(["allow", "rule-allow"].map(Value::from)));
    assert_eq!(about(overlay), Some(["deny", "spoofed"].map(Value::from)), "{records:#?}");
    field.assert_clean();
}

#[test]
fn a_wide_rule_reaches_no_host_no_other_agent_and_no_metadata() {
    let field = Field::new();
    let _service = serve(&field.lab, &field.runner, 8080);
    let wide = ["0.0.0.0/0", "::/0"];
    let other = field.visitor("other", &wide);
    let listed = field.on_runner("ip", &["-4", "-o", "addr"]);
    let line = listed.lines().find(|line| line.contains("lattice-")).expect("the other's link");
    let outside = line.split_whitespace().nth(3).unwrap().split('/').next().unwrap();
    let inside = std::net::Ipv4Addr::from(u32::from(outside.parse::<std::net::Ipv4Addr>().unwrap()) + 1);
    let [a, b, c, _] = field.runner.address.octets();
    let refused: Vec<String> = [
        format!("tcp:{}:8080", field.runner.address),
        format!("udp:{}:8080", field.runner.address),
        format!("udp:{a}.{b}.{c}.255:8080"),
        "tcp:[2001:db8:50::2]:8080".into(),
        format!("tcp:{outside}:8080"),
        format!("tcp:{inside}:8080"),
        "tcp:169.254.169.254:80".into(),
        "tcp:[fd00:ec2::254]:80".into(),
        "tcp:[64:ff9b::a9fe:a9fe]:80".into(),
    ]
    .into_iter()
    .filter(|probe| has_ipv6() || !probe.contains("2001:"))
    .collect();
    let mut probes = vec![format!("http:{SERVER}:{PORT}"), format!("http:{NEIGHBOUR}:{PORT}")];
    probes.extend(refused.iter().cloned());
    let (attempts, _) = field.probe("a", &wide, &probes);
    for attempt in &attempts {
        let refused = refused.contains(&attempt.probe);
        assert_eq!(refused, REFUSED.contains(&attempt.result.as_str()), "{attempt:?}");
        assert_eq!(!refused, attempt.result == "ok", "{attempt:?}");
    }
    assert_eq!(attempts.len(), probes.len());
    let records = field.records("a");
    for target in &refused {
        let (host, _) = target.split_once(':').unwrap().1.rsplit_once(':').unwrap();
        let host = host.trim_matches(['[', ']']);
        let about: Vec<_> = records.iter().filter(|record| record["dstIP"] == host).collect();
        let is_metadata = ["169.254.", "fd00:ec2:", "64:ff9b:"].iter().any(|net| host.starts_with(net));
        let reason = if is_metadata { "rule-deny" } else { "uplink" };
        let denied = about.iter().all(|record| record["action"] == "deny" && record["reason"] == reason);
        assert!(denied && !about.is_empty(), "{target}: {about:#?}");
    }
    // The one's end leaves the other its way out, and neither its coming nor its going changed the other's policy: that cuts flows.
    let visits = || other.output().0.lines().count();
    let seen = visits();
    wait_until(LIMIT, "more visits", || visits() > seen + 3);
    let file = field.runner.dir.join("other/audit.jsonl");
    let records = || -> Vec<Value> {
        // The last line may be half written.
        let lines = fs::read_to_string(&file).expect("the records");
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let visits_of: Vec<Value> = records().into_iter().filter(|record| record["dstIP"] == SERVER).collect();
    assert!(
        visits_of.iter().all(|record| record["generation"] == visits_of[0]["generation"]),
        "{visits_of:#?}"
    );
    // An address that the host gets is the host's from then on, for who was allowed to go there before.
    field.on_runner("ip", &["addr", "add", &format!("{SERVER}/32"), "dev", "lo"]);
    wait_until(LIMIT, "a refusal on record", || {
        records().iter().any(|record| record["dstIP"] == SERVER && record["reason"] == "uplink")
    });
    field.on_runner("ip", &["addr", "del", &format!("{SERVER}/32"), "dev", "lo"]);
    other.signal(Signal::SIGTERM);
    other.finish(LIMIT);
    field.assert_clean();
}

#[test]
fn what_a_kill_leaves_is_removed_by_doctor_and_by_the_next_start() {
    let field = Field::new();
    let rule = format!("{SERVER}/32:{PORT}");
    for by_doctor in [true, false] {
        let visitor = field.visitor("a", &[&rule]);
        visitor.signal(Signal::SIGKILL);
        visitor.finish(LIMIT);
        wait_until(LIMIT, "the link to go with its namespace", || {
            !field.on_runner("ip", &["-o", "link"]).contains("lattice-")
        });
        assert!(!field.traces().is_empty(), "else this test proves nothing");
        if by_doctor {
            let out = field.lab.run(&field.runner, &["doctor", "--fix"]);
            assert!(out.stdout.contains("removed: a"), "{}{}", out.stdout, out.stderr);
        } else {
            let mut command = field.start("a", &[]);
            command.args(["--agent-binary", "/bin/true"]);
            let out = field.finish(command);
            assert!(out.code == 0 && out.stderr.contains("killed run"), "{}", out.stderr);
        }
        field.assert_clean();
    }
}

#[test]
fn a_signal_at_any_phase_leaves_nothing() {
    let field = Field::new();
    for step in ["veth", "policy", "links", "uplink", "peers"] {
        let mut command = field.start("a", &["0.0.0.0/0"]);
        command.args(["--agent-binary", "/bin/sleep", "--", "60"]);
        let mut process = Process::spawn(command, "a", field.lab.dir.path());
        process.wait_for(&format!("] {step} "), LIMIT);
        process.signal(Signal::SIGTERM);
        let out = process.finish(LIMIT);
        assert!([75, 143].contains(&out.code), "after {step}: {} {}", out.code, out.stderr);
        field.assert_clean();
    }
}

#[test]
fn without_nft_or_writable_sysctls_nothing_is_opened() {
    let field = Field::new();
    let nft = field.on_runner("sh", &["-c", "PATH=$PATH:/usr/sbin:/sbin command -v nft"]);
    let hide = format!("mount --bind /dev/null {}", nft.trim());
    let fixed = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys";
    // A rule that can only be outside is refused before a token is spent; for the other the map is needed.
    let (public, private) = ("203.0.113.7/32:443", "192.168.50.1/32:443");
    for (rule, setup, code, says) in [
        (public, hide.as_str(), 72, "apt-get install nftables"),
        (private, &hide, 72, "apt-get install nftables"),
        (public, fixed, 71, "forwarding to 1: Read-only file system"),
    ] {
        let mut command = field.start("a", &[rule]);
        command.args(["--agent-binary", "/bin/true"]);
        let out = field.finish(after(&command, setup));
        assert_eq!(out.code, code, "{}", out.stderr);
        let error = out.stderr.lines().find(|line| line.starts_with("error:")).unwrap_or_default();
        assert!(error.contains(says), "{}", out.stderr);
        assert!(!out.stderr.contains("could not undo"), "{}", out.stderr);
        let spent = field.runner.dir.join("a/etc").exists();
        assert_eq!(spent, !(rule == public && setup == hide), "{}", out.stderr);
        field.assert_clean();
    }
}

#[test]
fn a_firewall_that_would_drop_it_is_named_with_what_helps() {
    let field = Field::new();
    let drop = "add table inet mine; add chain inet mine onward { type filter hook forward priority 0; policy drop; }";
    field.on_runner("nft", &[drop]);
    let rule = format!("{SERVER}/32:{PORT}");
    let probes = [format!("http:{SERVER}:{PORT}")];
    let (attempts, out) = field.probe("a", &[&rule], &probes);
    assert_ne!(attempts[0].result, "ok");
    let warning = out.stderr.lines().find(|line| line.starts_with("warning:")).unwrap_or_default();
    assert!(warning.contains("nft list chain inet mine onward"), "{}", out.stderr);
    let (_, remedy) = warning.split_once("to allow it: ").expect("a remedy");
    for command in remedy.split("; ") {
        field.on_runner("sh", &["-c", &command.replace('"', "\\\"")]);
    }
    let (attempts, out) = field.probe("a", &[&rule], &probes);
    assert!(attempts[0].result == "ok" && !out.stderr.contains("warning:"), "{attempts:?} {}", out.stderr);
    field.on_runner("nft", &["delete table inet mine"]);
    field.assert_clean();
}

#[test]
fn a_rule_that_this_host_has_no_route_for_is_accepted_with_a_warning() {
    let mut lab = Lab::start();
    let host = lab.host();
    let rules = ["203.0.113.7/32:443", "10.42.0.9/32:80", "tcp:[2001:db8::1]:443"];
    let mut command = agent::start(&lab, &host, "agent", &rules);
    let probes = ["tcp:203.0.113.7:443", "tcp:203.0.113.8:443", "tcp:[2001:db8::1]:443"];
    command.args(["--agent-binary", "/usr/local/bin/demo-agent", "--"]).args(probes);
    let out = Process::spawn(command, "agent", lab.dir.path()).finish(LIMIT);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let warnings: Vec<&str> = out.stderr.lines().filter(|line| line.starts_with("warning:")).collect();
    assert_eq!(warnings.len(), 2, "{}", out.stderr);
    assert!(
        warnings[0].contains("--egress-allow 203.0.113.7/32:443: this host has no route"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("--egress-allow tcp:[2001:db8::1]:443: this host has no"), "{warnings:?}");
    let attempts = agent::attempts(&out.stdout);
    assert!(attempts.iter().all(|attempt| REFUSED.contains(&attempt.result.as_str())), "{attempts:?}");
    let text = fs::read_to_string(host.dir.join("audit.jsonl")).expect("the records");
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let about = |ip: &str| records.iter().find(|record| record["dstIP"] == ip).expect("a record");
    for (ip, reason, rule) in [
        ("203.0.113.7", "uplink", "203.0.113.7/32 (this host has no route to it)"),
        ("2001:db8::1", "uplink", "2001:db8::1/128 (this host has no route to it)"),
        ("203.0.113.8", "default-deny", ""),
    ] {
        let record = about(ip);
        assert_eq!((&record["action"], &record["reason"]), (&"deny".into(), &reason.into()), "{record}");
        assert_eq!(record["rule"].as_str().unwrap_or_default(), rule, "{record}");
    }
    remains::assert_none(&host);
}

/// A host that has no way out yet, gets one, and moves to another network.
#[test]
fn it_follows_the_host_to_another_network() {
    let mut field = Field::new();
    let second = field.lab.host();
    let link = |host: &Host, words: &str| {
        let words: Vec<&str> = words.split_whitespace().collect();
        let out = field.lab.on(host, "ip", &words);
        assert_eq!(out.code, 0, "ip {words:?}: {}", out.stderr);
    };
    lattice_overlay::link::add_veth(&field.runner.netns, "up1", &second.netns, "up1").expect("a pair");
    link(&second, &format!("addr add {SERVER}/32 dev lo"));
    for (host, ip) in [(&field.runner, "198.51.100.1/24"), (&second, "198.51.100.2/24")] {
        link(host, &format!("addr add {ip} dev up1"));
        link(host, "link set up1 up");
    }
    let _service = serve(&field.lab, &second, PORT);
    for (host, text) in [(&field.server, "first"), (&second, "second")] {
        fs::write(host.dir.join("who"), format!("by the {text}\n")).expect("a file");
    }
    link(&field.runner, "route del default");

    let mut command = field.start("a", &[&format!("tcp:{SERVER}/32:{PORT}")]);
    let script =
        format!("while :; do curl -sf -m 5 http://{SERVER}:{PORT}/who || echo refused $?; sleep 0.05; done");
    command.args(["--agent-binary", "/bin/sh", "--", "-c", &script]);
    let mut agent = Process::spawn(command, "a", field.lab.dir.path());
    agent.wait_for("refused 7\n", LIMIT);
    let expect = |words: &str, text: &str| {
        link(&field.runner, words);
        let (begun, seen) = (std::time::Instant::now(), agent.output().0.len());
        wait_until(LIMIT, text, || agent.output().0[seen..].lines().any(|line| line == text));
        println!("{text:?} {} ms after {words:?}", begun.elapsed().as_millis());
    };
    let first = format!("route replace default via {}", field.server.address);
    expect(&first, "by the first");
    expect("route replace default via 198.51.100.2", "by the second");
    expect(&first, "by the first");
    expect("route del default", "refused 7");
    let reasons = || -> Vec<String> {
        let text = fs::read_to_string(field.runner.dir.join("a/audit.jsonl")).expect("the records");
        // The last line may be half written.
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut reasons: Vec<String> = records
            .filter(|record| record["dstIP"] == SERVER)
            .filter_map(|record| record["reason"].as_str().map(str::to_owned))
            .collect();
        reasons.dedup();
        reasons
    };
    wait_until(LIMIT, "a refusal on record", || reasons().last().is_some_and(|reason| reason == "uplink"));
    expect("route replace default via 198.51.100.2", "by the second");
    let forwards = |link: &str| {
        field.on_runner("sysctl", &["-n", &format!("net.ipv4.conf.{link}.forwarding")]).trim() == "1"
    };
    assert!(forwards("up1") && !forwards("eth0"), "what led out before is closed again");

    assert_eq!(reasons(), ["uplink", "rule-allow", "uplink", "rule-allow"]);
    agent.signal(Signal::SIGTERM);
    agent.finish(LIMIT);
    assert!(!forwards("up1"));
    field.assert_clean();
}
