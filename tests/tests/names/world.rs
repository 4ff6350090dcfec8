//! A runner whose way to everything else is one host: an internet with a nameserver that says what it was asked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lattice_tests::{Attempt, Host, Lab, Output, Process, agent, process::command};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Addresses of the internet: not of documentation, which no name opens.
pub(crate) const SERVER: &str = "23.20.0.7";
pub(crate) const NEIGHBOUR: &str = "23.20.0.8";
pub(crate) const SERVER_6: &str = "2600:1f00::7";
pub(crate) const REFUSED: &str = "ECONNREFUSED";
/// An address of the runner itself, as public as the others.
const OWN: &str = "23.20.0.99";

const INTERNET: &str = include_str!("internet.py");
const AGENT: &str = include_str!("agent.py");

pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) runner: Host,
    internet: Process,
}

/// What came of one sandbox.
pub(crate) struct Run {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) out: Output,
    pub(crate) records: Vec<Value>,
    /// What the nameserver was asked: `name TYPE`.
    pub(crate) queries: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut lab = Lab::start();
        let (host, runner) = (lab.host(), lab.host());
        for (on, args) in [
            (&host, format!("addr add {SERVER}/32 dev lo")),
            (&host, format!("addr add {NEIGHBOUR}/32 dev lo")),
            (&host, format!("addr add {SERVER_6}/128 dev lo")),
            (&host, "addr add 2600:1f00:50::1/64 dev eth0 nodad".into()),
            (&runner, "addr add 2600:1f00:50::2/64 dev eth0 nodad".into()),
            (&runner, format!("addr add {OWN}/32 dev lo")),
            (&runner, format!("route add default via {}", host.address)),
            (&runner, "-6 route add default via 2600:1f00:50::1".into()),
        ] {
            let words: Vec<&str> = args.split_whitespace().collect();
            let out = lab.on(on, "ip", &words);
            assert_eq!(out.code, 0, "ip {args}: {}", out.stderr);
        }
        let internet = serve(&lab, &host);
        // In the lab's own mount namespace, from which its commands are started.
        let conf = lab.dir.path().join("resolv.conf");
        fs::write(&conf, format!("nameserver {}\n", host.address)).expect("resolv.conf");
        let none = None::<&str>;
        mount(Some(&conf), "/etc/resolv.conf", none, MsFlags::MS_BIND, none).expect("a bind mount");
        Self { lab, runner, internet }
    }

    /// A sandbox with these rules, to its end.
    pub(crate) fn run(&self, options: &[&str], rules: &[&str], probes: &[&str]) -> Run {
        let asked = self.queries().len();
        let _none = fs::remove_file(self.audit());
        let mut start = self.start(options, rules);
        start.args(["--agent-binary", "/usr/bin/python3", "--", "-c", AGENT]).args(probes);
        let out = Process::spawn(start, "agent", self.lab.dir.path()).finish(LIMIT);
        let attempts = agent::attempts(&out.stdout);
        let queries = self.queries().split_off(asked);
        let records = if out.code == 0 { self.records() } else { Vec::new() };
        Run { attempts, out, records, queries }
    }

    /// A sandbox without an agent binary.
    pub(crate) fn start(&self, options: &[&str], rules: &[&str]) -> Command {
        let mut start = agent::start(&self.lab, &self.runner, "agent", rules);
        start.args(options);
        start
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.runner.dir.join("audit.jsonl")
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.audit()).expect("the records");
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    /// What the nameserver has been asked so far.
    pub(crate) fn queries(&self) -> Vec<String> {
        let said = self.internet.output().0;
        said.lines().filter_map(|line| line.strip_prefix("query ")).map(str::to_owned).collect()
    }
}

impl Run {
    /// The result of one attempt. A connection that is refused at the call is [`REFUSED`] as well.
    pub(crate) fn result(&self, probe: &str) -> &str {
        match self.attempt(probe).result.as_str() {
            "EPERM" => REFUSED,
            result => result,
        }
    }

    pub(crate) fn attempt(&self, probe: &str) -> &Attempt {
        let found = self.attempts.iter().find(|attempt| attempt.probe == probe);
        found.unwrap_or_else(|| panic!("no attempt {probe}: {}", self.out.stderr))
    }

    /// Every attempt came to what is expected of it.
    pub(crate) fn assert_results(&self, expected: &[(&str, &str)]) {
        assert_eq!(self.out.code, 0, "{}", self.out.stderr);
        let wrong: Vec<_> = expected.iter().filter(|(probe, result)| self.result(probe) != *result).collect();
        assert!(wrong.is_empty(), "expected {wrong:?}: {:#?}\n{}", self.attempts, self.out.stderr);
    }

    /// A record with this reason and name.
    pub(crate) fn denied(&self, reason: &str, name: &str) -> Option<&Value> {
        self.records.iter().find(|record| record["reason"] == reason && record["name"] == name)
    }
}

/// What there is.
fn zone() -> Value {
    let many: Vec<Value> = (0..32).map(|last| json!(["A", format!("23.20.1.{last}")])).collect();
    let here = json!([["A", SERVER]]);
    json!({
        "api.example.com": here,
        "brief.example.com": here,
        "other.example.com": here,
        "example.com": here,
        "evilexample.com": here,
        "sub.example.com": here,
        "deep.sub.example.com": here,
        "xn--bcher-kva.example.com": here,
        "v6.example.com": [["AAAA", SERVER_6]],
        "alias.example.com": [["CNAME", "middle.example.net"]],
        "middle.example.net": [["CNAME", "cdn.example.net"]],
        "cdn.example.net": [["A", NEIGHBOUR]],
        "many.example.com": many,
        "metadata.example.com": [["A", "169.254.169.254"]],
        "loopback.example.com": [["A", "127.0.0.1"], ["AAAA", "::1"]],
        "peer.example.com": [["A", "10.42.0.77"]],
        "hub.example.com": [["A", "192.168.50.1"]],
        "own.example.com": [["A", OWN]],
        "mapped.example.com": [["AAAA", format!("::ffff:{SERVER}")]],
        "nat64.example.com": [["AAAA", "64:ff9b::a9fe:a9fe"]],
        "mixed.example.com": [["A", SERVER], ["A", "127.0.0.1"]],
    })
}

fn serve(lab: &Lab, host: &Host) -> Process {
    let mut internet = command(&host.netns.path(), Path::new("python3"));
    internet.args(["-c", INTERNET, &zone().to_string(), "80", "443", "8080"]);
    let mut process = Process::spawn(internet, "internet", lab.dir.path());
    process.wait_for("serves", LIMIT);
    process
}
