//! The main job: one agent, allowed one thing and refused the rest, with the verdicts on record.

use std::{fs, time::Duration};

use lattice_tests::{Attempt, Lab, Output, Process, agent, lab::overlay_ip, remains};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const REFUSED: [&str; 3] = ["EPERM", "ECONNREFUSED", "EHOSTUNREACH"];

fn probe(lab: &Lab, host: &lattice_tests::Host, rules: &[&str], probes: &[String]) -> (Vec<Attempt>, Output) {
    let mut command = agent::start(lab, host, "agent", rules);
    command.args(["--agent-binary", "/usr/local/bin/demo-agent", "--"]).args(probes);
    let out = Process::spawn(command, "agent", lab.dir.path()).finish(LIMIT);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    agent::assert_expected(&out.stderr);
    (agent::attempts(&out.stdout), out)
}

#[test]
fn an_agent_reaches_what_it_may_and_nothing_else_and_every_verdict_is_recorded() {
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (_node, tool_ip) = lab.up(&tool, "tool");
    let _services = [lab.serve_http(&tool, 8080), lab.serve_http(&tool, 9090)];
    let allowed = [format!("http:{tool_ip}:8080"), "http:tool.lattice:8080".into()];
    let denied = [
        format!("tcp:{tool_ip}:9090"),
        format!("tcp:{}:8080", tool.address),
        format!("tcp:{}:22", runner.address),
        "tcp:192.168.50.1:8080".into(),
        "tcp:192.168.50.1:4222".into(),
        "tcp:169.254.169.254:80".into(),
        "tcp:[fd00:ec2::254]:80".into(),
        "tcp:[2001:db8::1]:443".into(),
        "tcp:[64:ff9b::a2a:2]:8080".into(),
        "udp:192.0.2.53:53".into(),
        format!("udp:{tool_ip}:8080"),
        format!("marked:{tool_ip}:9090"),
    ];
    let lacking =
        ["raw:", "packet:", "tun:", "downlink:", "name:example.com", "name:tool.lattice.example.com"];
    let probes: Vec<String> = allowed
        .iter()
        .chain(&denied)
        .cloned()
        .chain(lacking.iter().map(|p| (*p).to_owned()))
        .chain(["capabilities:".into(), "secrets:".into(), "links:".into()])
        .collect();
    // UDP to the allowed TCP port must not slip through: the rule names TCP.
    let rule = format!("tcp:{tool_ip}/32:8080");
    let (attempts, first) = probe(&lab, &runner, &[&rule], &probes);
    for attempt in &attempts {
        let probe = attempt.probe.as_str();
        if allowed.iter().any(|p| p == probe) {
            assert_eq!(attempt.result, "ok", "{attempt:?}");
        } else if denied.iter().any(|p| p == probe) {
            assert!(REFUSED.contains(&attempt.result.as_str()), "refused at once, not hung: {attempt:?}");
        } else if lacking.contains(&probe) {
            assert_ne!(attempt.result, "ok", "{attempt:?}");
        } else if probe == "links:" {
            // In no order: kernels before 6.10 list them by hash.
            assert_eq!(attempt.detail.as_array().map(Vec::len), Some(2), "{attempt:?}");
            for link in ["lo", "wg0"] {
                assert!(attempt.detail.as_array().unwrap().contains(&link.into()), "{attempt:?}");
            }
        } else {
            assert_eq!(attempt.detail, "none", "{attempt:?}");
        }
    }
    assert_eq!(attempts.len(), probes.len());

    let audit = runner.dir.join("audit.jsonl");
    let records: Vec<Value> =
        fs::read_to_string(&audit).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for target in &denied {
        let (_, to) = target.split_once(':').unwrap();
        let (host, port) = to.rsplit_once(':').unwrap();
        let host = host.trim_matches(['[', ']']);
        let found = records.iter().find(|r| {
            r["dstIP"] == host && r["dstPort"].as_u64() == port.parse().ok() && r["action"] == "deny"
        });
        let record = found.unwrap_or_else(|| panic!("no record of {target}: {records:#?}"));
        assert_eq!((&record["class"], &record["agent"]), (&"kernel".into(), &"agent".into()));
    }
    let allows: Vec<&Value> = records.iter().filter(|r| r["action"] == "allow").collect();
    assert!(!allows.is_empty() && allows.iter().all(|r| r["rule"] == rule.as_str()), "{allows:#?}");
    assert_eq!(lab.run(&runner, &["audit", "verify", &audit.display().to_string()]).code, 0);
    remains::assert_none(&runner);

    // A restart resumes: same address, and there is no token that it could use.
    let (again, second) = probe(&lab, &runner, &[&rule], &allowed[..1]);
    assert_eq!(again[0].result, "ok");
    assert_eq!(overlay_ip(&first.stderr), overlay_ip(&second.stderr));
    assert!(second.stderr.contains("resumed"), "{}", second.stderr);
    remains::assert_none(&runner);
}

#[test]
fn an_agent_reaches_its_peers_by_ipv6_as_by_ipv4() {
    let mut lab = Lab::start();
    let (tool, other, runner) = (lab.host(), lab.host(), lab.host());
    let (_node, tool_ip) = lab.up(&tool, "tool");
    let (_other, _) = lab.up(&other, "other");
    let _services = [lab.serve_http(&tool, 8080), lab.serve_http(&tool, 9090), lab.serve_http(&other, 8080)];
    let address6 = |host, name: &str| {
        let out = lab.run(host, &["status", name, "-o", "json"]);
        let status: Value = serde_json::from_str(&out.stdout).unwrap();
        status["peers"][0]["status"]["address6"].as_str().unwrap().to_owned()
    };
    let (tool6, other6) = (address6(&tool, "tool"), address6(&other, "other"));
    let allowed = format!("http:[{tool6}]:8080");
    let denied = [(tool6.as_str(), 9090), (other6.as_str(), 8080), ("fdff:ffff:ffff::a2a:2", 8080)];
    let probes: Vec<String> =
        denied.iter().map(|(to, port)| format!("tcp:[{to}]:{port}")).chain([allowed.clone()]).collect();
    let rule = format!("tcp:{tool_ip}/32:8080");
    let (attempts, _) = probe(&lab, &runner, &[&rule], &probes);
    assert_eq!(attempts.len(), probes.len());
    for attempt in &attempts {
        match attempt.probe == allowed {
            true => assert_eq!(attempt.result, "ok", "{attempt:?}"),
            false => assert!(REFUSED.contains(&attempt.result.as_str()), "{attempt:?}"),
        }
    }
    let records = fs::read_to_string(runner.dir.join("audit.jsonl")).unwrap();
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let record = |to: &str, port: u16| {
        let found = records.iter().find(|r| r["dstIP"] == to && r["dstPort"] == port);
        found.unwrap_or_else(|| panic!("no record of {to} {port}: {records:#?}"))
    };
    let allow = record(&tool6, 8080);
    assert_eq!((&allow["action"], &allow["rule"]), (&"allow".into(), &rule.as_str().into()));
    for (to, port) in denied {
        assert_eq!(record(to, port)["action"], "deny");
    }

    // By name, where the agent asks for IPv6 alone.
    let script = "import socket,urllib.request\n\
        address=socket.getaddrinfo('tool.lattice',8080,socket.AF_INET6,socket.SOCK_STREAM)[0][4][0]\n\
        print(address, urllib.request.urlopen(f'http://[{address}]:8080/',timeout=20).status)";
    let mut command = agent::start(&lab, &runner, "agent", &[&rule]);
    command.args(["--agent-binary", "/usr/bin/python3", "--", "-c", script]);
    let out = Process::spawn(command, "agent", lab.dir.path()).finish(LIMIT);
    assert_eq!((out.code, out.stdout), (0, format!("{tool6} 200\n")), "{}", out.stderr);
    remains::assert_none(&runner);
}

#[test]
fn without_a_rule_nothing_is_reached_and_replies_to_nobody_come_in() {
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (_node, tool_ip) = lab.up(&tool, "tool");
    let _service = lab.serve_http(&tool, 8080);
    let (target, listen) = (
        format!("tcp:{tool_ip}:8080"),
        "import socket,time\ns=socket.socket();s.bind(('0.0.0.0',7000));s.listen()\nprint('listening',flush=True)\ntime.sleep(60)",
    );
    let out = {
        let mut probing = agent::start(&lab, &runner, "agent", &[]);
        probing.args(["--agent-binary", "/usr/local/bin/demo-agent", "--", &target]);
        Process::spawn(probing, "agent", lab.dir.path()).finish(LIMIT)
    };
    let attempts = agent::attempts(&out.stdout);
    assert!(REFUSED.contains(&attempts[0].result.as_str()), "{attempts:?}{}", out.stderr);
    let address = overlay_ip(&out.stderr);

    let mut command = agent::start(&lab, &runner, "agent", &[]);
    command.args(["--agent-binary", "/usr/bin/python3", "--", "-c", listen]);
    let mut listening = Process::spawn(command, "agent", lab.dir.path());
    listening.wait_for("listening", LIMIT);
    let ping = lab.on(&tool, "ping", &["-c", "2", "-i", "0.2", "-W", "2", &address.to_string()]);
    assert_eq!(ping.code, 0, "echo from a peer is answered: {}{}", ping.stdout, ping.stderr);
    let reached = lab.on(&tool, "curl", &["-s", "-m", "2", &format!("http://{address}:7000/")]);
    assert_ne!(reached.code, 0, "nobody may open a connection to the agent");
    listening.signal(Signal::SIGTERM);
    assert_eq!(listening.finish(LIMIT).code, 143, "an agent ended by a signal");
    remains::assert_none(&runner);
}

#[test]
fn exit_codes_output_environment_and_user_are_the_agents_own() {
    let mut lab = Lab::start();
    let runner = lab.host();
    let script = "import os,sys\nprint(sorted(os.environ), os.getuid(), os.environ['COLOUR'])\nprint('err', file=sys.stderr)\nsys.exit(17)";
    let mut flagged = agent::start(&lab, &runner, "agent", &[]);
    flagged.args([
        "--env",
        "COLOUR=green",
        "--user",
        "1000:1000",
        "--agent-binary",
        "/usr/bin/python3",
        "--",
        "-c",
        script,
    ]);
    flagged.env("SECRET_OF_THE_HOST", "1");
    let out = Process::spawn(flagged, "agent", lab.dir.path()).finish(LIMIT);
    assert_eq!(out.code, 17, "{}", out.stderr);
    assert_eq!(out.stdout, "['COLOUR', 'HOME', 'PATH'] 1000 green\n");
    assert!(out.stderr.contains("\nerr\n"), "{}", out.stderr);
    remains::assert_none(&runner);
}
