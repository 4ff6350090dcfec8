//! The demonstration: one agent, under gVisor, on the overlay, allowed one thing and refused the rest.
//!
//! Everything here is the product's own commands on three hosts (network namespaces of this machine); each is printed as it runs.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a demonstration ends at its first surprise")]

mod leftovers;
mod report;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use lattice_tests::{Attempt, Lab, Process, agent, lab::overlay_ip};

use leftovers::Leftovers;
use report::Report;

/// What an agent may see as the answer to something forbidden: at once, and never a hang.
const REFUSED: [&str; 4] = ["EPERM", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"];
const AGENT: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let before = Leftovers::now();
    let mut report = Report::default();
    run(&mut report);
    let left = before.settle();
    report.check(
        "nothing is left on this machine",
        "no process, link, mount, cgroup, bpf program",
        left.is_empty(),
        &left.join(", "),
    );
    report.print()
}

fn run(report: &mut Report) {
    report.chapter("1. The control plane: SQLite, its own nats-server, a workspace, two tokens");
    let begun = Instant::now();
    report.command("hub", "latticed --data-dir …");
    let mut lab = Lab::start();
    report.done("latticed is up, workspace demo made", begun);
    report.command("hub", "lattice token create --workspace demo        (twice)");
    let (tool, runner) = (lab.host(), lab.host());

    report.chapter("2. A tool service on a second host: HTTP on ports 8080 and 9090 of its overlay address");
    let begun = Instant::now();
    report.command("tool", "lattice up --name tool --token-file …");
    let (node, tool_ip) = lab.up(&tool, "tool");
    report.done(&format!("tool is {tool_ip} on the overlay"), begun);
    report.block(&node.output().1);
    let _services = [lab.serve_http(&tool, 8080), lab.serve_http(&tool, 9090)];

    report.chapter("3. The agent: allowed one port of one peer");
    let rule = format!("{tool_ip}/32:8080");
    report.command("runner", &format!("lattice sandbox start --mode gvisor --name demo-agent --agent-rootfs target/rootfs \\\n      --agent-binary /usr/local/bin/demo-agent --egress-allow {rule} --token-file …"));
    let underlay = tool.address;
    let own = runner.address;
    let allowed = [format!("http:{tool_ip}:8080"), "http:tool.lattice:8080".into()];
    let denied = [
        (format!("tcp:{tool_ip}:9090"), "another port of the tool"),
        (format!("tcp:{underlay}:8080"), "the tool over the underlay"),
        (format!("tcp:{own}:22"), "this host's other interface"),
        ("tcp:192.168.50.1:8080".into(), "the control plane's HTTP"),
        ("tcp:192.168.50.1:4222".into(), "the control plane's NATS"),
        ("tcp:169.254.169.254:80".into(), "cloud metadata"),
        ("tcp:[fd00:ec2::254]:80".into(), "cloud metadata, IPv6"),
        ("tcp:[2001:db8::1]:443".into(), "IPv6"),
        ("udp:192.0.2.53:53".into(), "a foreign resolver"),
        (format!("marked:{tool_ip}:9090"), "another port, marked with SO_MARK"),
        ("tcp:192.0.2.1:443".into(), "the internet"),
    ];
    let lacking = [
        ("raw:", "a raw socket"),
        ("packet:", "a packet socket"),
        ("tun:", "/dev/net/tun"),
        ("downlink:", "setting a link down"),
    ];
    let probes: Vec<String> = allowed
        .iter()
        .cloned()
        .chain(denied.iter().map(|(probe, _)| probe.clone()))
        .chain(lacking.iter().map(|(probe, _)| (*probe).to_owned()))
        .chain(["name:example.com".into(), "capabilities:".into(), "secrets:".into()])
        .collect();
    let first = start(&lab, &runner, &rule, &probes, report);
    let attempts = first.attempts;
    for probe in &allowed {
        let attempt = find(&attempts, probe);
        report.attempt("reaches", "the allowed service", attempt, attempt.result == "ok");
    }
    for (probe, what) in &denied {
        let attempt = find(&attempts, probe);
        report.attempt(
            "refused",
            what,
            attempt,
            REFUSED.contains(&attempt.result.as_str()) && attempt.ms < 1000.0,
        );
    }
    report.attempt(
        "refused",
        "a name outside the overlay",
        find(&attempts, "name:example.com"),
        find(&attempts, "name:example.com").result != "ok",
    );
    for (probe, what) in lacking {
        let attempt = find(&attempts, probe);
        report.attempt("lacks", what, attempt, attempt.result != "ok");
    }
    for (probe, what) in [("capabilities:", "capabilities"), ("secrets:", "keys, tokens, credentials")] {
        let attempt = find(&attempts, probe);
        report.attempt("lacks", what, attempt, attempt.detail == "none");
    }

    report.chapter("4. The verdicts, from the audit file; a restart with the same identity");
    let audit = runner.dir.join("audit.jsonl");
    report.command("runner", "lattice audit tail --name demo-agent -n 30");
    report.block(
        &lab.run(&runner, &["audit", "tail", "-n", "30", "--file", &audit.display().to_string()]).stdout,
    );
    report.command("runner", "lattice audit verify …");
    let verified = lab.run(&runner, &["audit", "verify", &audit.display().to_string()]);
    report.block(&verified.stdout);
    report.check("the audit chain holds", "lattice audit verify", verified.code == 0, &verified.stderr);
    report.command("runner", "lattice sandbox start …                      (again, without a token)");
    let again = start(&lab, &runner, &rule, &allowed[..1], report);
    let same = again.address == first.address && again.attempts.iter().all(|a| a.result == "ok");
    report.check(
        "a restart resumes",
        "same overlay address, no token used",
        same,
        &format!("{} then {}", first.address, again.address),
    );
    report.command("hub", "lattice peer list");
    report.block(&lab.admin(&["peer", "list"]));
    node.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = node.finish(Duration::from_secs(10));
    report.check("lattice up ends cleanly", "SIGTERM", ended.code == 0, &ended.stderr);
}

struct Run {
    attempts: Vec<Attempt>,
    address: std::net::Ipv4Addr,
}

fn start(lab: &Lab, host: &lattice_tests::Host, rule: &str, probes: &[String], report: &mut Report) -> Run {
    let begun = Instant::now();
    let mut command = agent::start(lab, host, "demo-agent", &[rule]);
    command.args(["--agent-binary", "/usr/local/bin/demo-agent", "--"]).args(probes);
    let out = Process::spawn(command, "agent", lab.dir.path()).finish(AGENT);
    report.block(&out.stderr);
    report.done("sandbox started, agent ran, everything undone", begun);
    assert_eq!(out.code, 0, "the sandbox failed");
    Run { attempts: agent::attempts(&out.stdout), address: overlay_ip(&out.stderr) }
}

fn find<'a>(attempts: &'a [Attempt], probe: &str) -> &'a Attempt {
    attempts.iter().find(|attempt| attempt.probe == probe).expect("the agent tried it")
}
