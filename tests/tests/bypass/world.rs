//! Two hosts with the same way to the same internet, one of them with a sandbox on it; and a canary that sees what
//! arrives there, whatever our own records say.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lattice_tests::{Host, Lab, Packet, Process, Sniffer, agent, process::command, sniffer};
use serde::Deserialize;

use crate::Enforcer;

/// Opens the socket that the attempt `inherited` is about, and lets the program have it.
const LEAVE_OPEN: &str = "exec 9<>/dev/udp/203.0.113.38/9; exec \"$@\"";
const PROGRAM: &str = include_str!("attempts.py");
const LIMIT: Duration = Duration::from_secs(240);

/// What the internet consists of. Some of these are somewhere on every cloud.
const INTERNET: [&str; 14] = [
    "203.0.113.0/24",
    "198.51.100.0/24",
    "10.99.0.0/16",
    "169.254.169.254/32",
    "100.100.100.200/32",
    "224.0.0.251/32",
    "2001:db8::/48",
    "2001:db8:ffff::/48",
    "2001:0:cb00:7101::/64",
    "2002:cb00:7101::/48",
    "64:ff9b::/96",
    "fd99::/64",
    "fd00:ec2::254/128",
    "2001:db8:5::/48",
];

/// How an attempt ended.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Result {
    pub(crate) name: String,
    /// `ok`, `silence`, or the error.
    pub(crate) result: String,
}

pub(crate) struct World {
    pub(crate) lab: Lab,
    /// Where sandboxes run.
    pub(crate) runner: Host,
    /// The same, without a sandbox.
    pub(crate) twin: Host,
    internet: Host,
    _services: Vec<Process>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut lab = Lab::start();
        let (runner, twin, internet) = (lab.host(), lab.host(), lab.host());
        let ip = |host: &Host, args: &str| {
            let words: Vec<&str> = args.split_whitespace().collect();
            let out = lab.on(host, "ip", &words);
            assert_eq!(out.code, 0, "ip {args}: {}", out.stderr);
        };
        for (number, host) in [(3, &runner), (4, &twin), (5, &internet)] {
            ip(host, &format!("-6 addr add fd50::{number}/64 dev eth0 nodad"));
        }
        for host in [&runner, &twin] {
            ip(host, &format!("route add default via {} dev eth0", internet.address));
            ip(host, "-6 route add default via fd50::5 dev eth0");
        }
        for net in INTERNET.iter().filter(|net| !net.starts_with("224.")) {
            let family = if net.contains(':') { "-6" } else { "-4" };
            ip(&internet, &format!("{family} route add local {net} dev lo"));
        }
        let ping = "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range";
        assert_eq!(lab.on(&twin, "sh", &["-c", ping]).code, 0);
        let services = [80, 443, 444, 53, 853].map(|port| serve(&lab, &internet, port)).into();
        Self { lab, runner, twin, internet, _services: services }
    }

    /// Runs attempts in a sandbox with these rules. Also says what the canary saw.
    pub(crate) fn in_sandbox(
        &self,
        enforcer: Enforcer,
        names: &[&str],
        egress: &[&str],
    ) -> (Vec<Result>, Vec<Packet>) {
        let _none = std::fs::remove_file(self.audit());
        let mut start = agent::start(&self.lab, &self.runner, "agent", egress);
        start.args(["--enforcer", enforcer.flag()]);
        start.args(["--agent-binary", "/usr/bin/python3", "--", "-c", PROGRAM]).args(names);
        let start = with_open_socket(&self.runner, &start);
        self.observe(|| {
            let out = Process::spawn(start, "agent", self.lab.dir.path()).finish(LIMIT);
            let policed = out.stderr.lines().find(|line| line.contains("] policy ")).unwrap_or_default();
            assert!(policed.contains(enforcer.flag()), "{}", out.stderr);
            out
        })
    }

    /// Runs attempts on a bare host.
    pub(crate) fn natively(&self, names: &[&str]) -> (Vec<Result>, Vec<Packet>) {
        self.natively_on(&self.twin, names)
    }

    /// Runs attempts on a host, without a sandbox.
    pub(crate) fn natively_on(&self, host: &Host, names: &[&str]) -> (Vec<Result>, Vec<Packet>) {
        let mut twin = command(&host.netns.path(), "python3".as_ref());
        twin.args(["-c", PROGRAM]).args(names);
        let twin = with_open_socket(host, &twin);
        self.observe(|| Process::spawn(twin, "twin", self.lab.dir.path()).finish(LIMIT))
    }

    /// A file of the host's.
    pub(crate) fn marker(&self) -> PathBuf {
        let path = self.lab.dir.path().join("marker");
        std::fs::write(&path, "of the host").expect("a file");
        path
    }

    fn observe(&self, run: impl FnOnce() -> lattice_tests::Output) -> (Vec<Result>, Vec<Packet>) {
        let canary = Sniffer::start(&self.internet.netns, |_| true);
        let out = run();
        sniffer::settle();
        let results = results(&out.stdout);
        assert!(!results.is_empty(), "{}", out.stderr);
        (results, canary.finish())
    }

    /// The records of the sandbox on the runner.
    pub(crate) fn records(&self) -> Vec<lattice_audit::FlowRecord> {
        let entries = lattice_audit::read(&self.audit()).unwrap_or_else(|error| panic!("{error}"));
        entries
            .filter_map(|entry| match entry.unwrap_or_else(|error| panic!("{error}")) {
                lattice_audit::Entry::Flow(flow) => Some(flow),
                lattice_audit::Entry::Gap(_) => None,
            })
            .collect()
    }

    fn audit(&self) -> PathBuf {
        self.runner.dir.join("audit.jsonl")
    }

    /// Where the internet is.
    pub(crate) fn internet(&self) -> Ipv4Addr {
        self.internet.address
    }
}

/// The lines of an agent's output.
pub(crate) fn results(stdout: &str) -> Vec<Result> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    stdout.lines().map(parse).collect()
}

/// `command` on `host`, with a socket of the host's that nobody closes.
fn with_open_socket(host: &Host, command: &Command) -> Command {
    let mut outer = lattice_tests::process::command(&host.netns.path(), Path::new("bash"));
    outer.args(["-c", LEAVE_OPEN, "bash"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// Accepts connections on every address, IPv4 and IPv6.
fn serve(lab: &Lab, host: &Host, port: u16) -> Process {
    let code = format!(
        "import socket\ns=socket.create_server(('::',{port}),family=socket.AF_INET6,dualstack_ipv6=True)\nprint('listens',flush=True)\nwhile True: s.accept()[0].close()"
    );
    let mut server = command(&host.netns.path(), "python3".as_ref());
    server.args(["-c", &code]);
    let mut process = Process::spawn(server, &format!("port{port}"), lab.dir.path());
    process.wait_for("listens", LIMIT);
    process
}
