//! The main job under each enforcer: the same reach, the same records but for their class, nothing left; and which of them
//! is taken where not all can be.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use lattice_tests::{Attempt, Host, Lab, Process, agent, lab::wait_until, remains};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const REFUSED: [&str; 3] = ["EPERM", "ECONNREFUSED", "EHOSTUNREACH"];

/// What `--enforcer` says, what status says, and the class of its records.
const ENFORCERS: [[&str; 3]; 3] = [
    ["ebpf", "ebpf/", "kernel"],
    ["nftables", "nftables (kernel)", "kernel"],
    ["userspace", "userspace (netns)", "netns"],
];

/// Runs a program whose every bpf(2) fails, as in a container with Docker's default filter of system calls.
const WITHOUT_BPF: &str = "
import ctypes, os, platform, struct, sys
bpf = {'x86_64': 321, 'aarch64': 280}[platform.machine()]
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, bpf), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
filter = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(22, 2, filter, 0, 0): sys.exit(os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
";

/// A tool with two ports on the overlay, and a runner.
struct Field {
    lab: Lab,
    tool: Host,
    runner: Host,
    ip: String,
    _parts: Vec<Process>,
}

impl Field {
    fn new() -> Self {
        let mut lab = Lab::start();
        let (tool, runner) = (lab.host(), lab.host());
        let (node, ip) = lab.up(&tool, "tool");
        let parts = vec![node, lab.serve_http(&tool, 8080), lab.serve_http(&tool, 9090)];
        Self { lab, tool, runner, ip: ip.to_string(), _parts: parts }
    }

    fn rule(&self) -> String {
        format!("tcp:{}/32:8080", self.ip)
    }

    /// Probes, and how they end; none: refused.
    fn probes(&self) -> Vec<(String, Option<&'static str>)> {
        let denied = [
            format!("tcp:{}:9090", self.ip),
            format!("udp:{}:8080", self.ip),
            format!("tcp:{}:8080", self.tool.address),
            "tcp:192.168.50.1:4222".into(),
            "tcp:169.254.169.254:80".into(),
            "tcp:[fd00:ec2::254]:80".into(),
            "tcp:[2001:db8::1]:443".into(),
            "udp:192.0.2.53:53".into(),
        ];
        let allowed = [format!("http:{}:8080", self.ip), "http:tool.lattice:8080".into()];
        let allowed = allowed.into_iter().map(|probe| (probe, Some("ok")));
        allowed.chain(denied.into_iter().map(|probe| (probe, None))).collect()
    }

    /// A sandbox that tries them all and waits.
    fn start(&self, options: &[&str]) -> Command {
        let _none = fs::remove_file(self.audit());
        let mut command = agent::start(&self.lab, &self.runner, "agent", &[&self.rule()]);
        command.args(options).args(["--agent-binary", "/usr/local/bin/demo-agent", "--"]);
        command.args(self.probes().iter().map(|(probe, _)| probe));
        command.args(["links:", "sleep:600"]);
        command
    }

    /// Starts it, and waits until it has tried them all.
    fn run(&self, command: Command) -> Process {
        let mut process = Process::spawn(command, "agent", self.lab.dir.path());
        process.wait_for("\"links:\"", LIMIT);
        self.assert_results(&agent::attempts(&process.output().0));
        process
    }

    fn assert_results(&self, attempts: &[Attempt]) {
        for (probe, expected) in self.probes() {
            let attempt = attempts.iter().find(|attempt| attempt.probe == probe).expect("it was tried");
            match expected {
                Some(result) => assert_eq!(attempt.result, result, "{attempt:?}"),
                None => assert!(REFUSED.contains(&attempt.result.as_str()), "at once, not hung: {attempt:?}"),
            }
        }
    }

    fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.audit()).unwrap_or_default();
        // A running sandbox may be writing the last line.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    /// Refused probes of which there is no record.
    fn unrecorded(&self) -> Vec<String> {
        let records = self.records();
        let is_missing = |probe: &String| {
            let (_, to) = probe.split_once(':').expect("a probe");
            let (host, port) = to.rsplit_once(':').expect("a port");
            !records.iter().any(|record| {
                record["dstIP"] == host.trim_matches(['[', ']'])
                    && record["dstPort"].as_u64() == port.parse().ok()
                    && record["action"] == "deny"
            })
        };
        let refused = self.probes().into_iter().filter(|(_, result)| result.is_none());
        refused.map(|(probe, _)| probe).filter(is_missing).collect()
    }

    /// Every attempt is on record with this class.
    fn assert_recorded(&self, class: &str) {
        let records = self.records();
        assert!(records.iter().all(|record| record["class"] == class), "{records:#?}");
        let allows: Vec<_> = records.iter().filter(|record| record["action"] == "allow").collect();
        assert!(
            !allows.is_empty() && allows.iter().all(|record| record["rule"] == self.rule()),
            "{allows:#?}"
        );
        let missing = self.unrecorded();
        assert!(missing.is_empty(), "no record of {missing:?}: {records:#?}");
        let audit = self.audit().display().to_string();
        assert_eq!(self.lab.run(&self.runner, &["audit", "verify", &audit]).code, 0);
    }

    fn audit(&self) -> std::path::PathBuf {
        self.runner.dir.join("audit.jsonl")
    }

    fn end(&self, process: Process) -> String {
        process.signal(Signal::SIGTERM);
        let out = process.finish(LIMIT);
        assert_eq!(out.code, 143, "{}", out.stderr);
        remains::assert_none(&self.runner);
        out.stderr
    }
}

/// `command` without bpf(2).
fn without_bpf(command: &Command) -> Command {
    let mut new = Command::new("python3");
    new.args(["-c", WITHOUT_BPF]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => new.env(name, value),
            None => new.env_remove(name),
        };
    }
    new
}

#[test]
fn every_enforcer_does_the_main_job_and_says_who_it_is() {
    let field = Field::new();
    for [enforcer, words, class] in ENFORCERS {
        let process = field.run(field.start(&["--enforcer", enforcer]));
        let status = field.lab.run(&field.runner, &["status"]);
        assert!(status.stdout.contains(words), "{}", status.stdout);
        let rules = field.lab.run(&field.runner, &["sandbox", "rules", "agent", "-o", "json"]);
        let rules: Value = serde_json::from_str(&rules.stdout).expect("a report");
        assert!(rules["enforcement"].as_str().unwrap().contains(words), "{rules}");
        let packets = |count: &Value| count["packets"].as_u64().unwrap_or(0);
        let ours = rules["rules"].as_array().unwrap().iter().find(|rule| rule["rule"] == field.rule());
        assert!(packets(ours.expect("the rule")) >= 2, "{rules:#}");
        assert!(packets(&rules["default"]) >= 5, "{rules:#}");
        assert_eq!(rules["lost"], 0);
        let stderr = field.end(process);
        assert!(stderr.contains(words) && !stderr.contains("is enforced by"), "{stderr}");
        field.assert_recorded(class);
    }
}

#[test]
fn a_kill_under_any_enforcer_leaves_no_process_and_doctor_removes_the_rest() {
    let field = Field::new();
    for [enforcer, _, class] in ENFORCERS {
        let process = field.run(field.start(&["--enforcer", enforcer]));
        // A record is written some milliseconds after its verdict, and a kill does not wait for it.
        wait_until(LIMIT, "the records", || field.unrecorded().is_empty());
        process.signal(Signal::SIGKILL);
        assert_eq!(process.finish(LIMIT).code, 137);
        let needle = field.runner.dir.join("run").display().to_string();
        wait_until(LIMIT, "its processes to be gone", || remains::processes(&needle).is_empty());
        let fixed = field.lab.run(&field.runner, &["doctor", "--fix"]);
        assert!(fixed.stdout.contains("removed: agent"), "{}{}", fixed.stdout, fixed.stderr);
        remains::assert_none(&field.runner);
        field.assert_recorded(class);
    }
}

#[test]
fn auto_takes_the_next_enforcer_where_one_is_not_permitted_and_says_why() {
    let field = Field::new();
    let warned = |stderr: &str, texts: [&str; 2]| {
        let warning = stderr.lines().find(|line| line.contains("the policy is enforced by")).unwrap_or("");
        assert!(texts.iter().all(|text| warning.contains(text)), "{stderr}");
    };
    let process = field.run(without_bpf(&field.start(&[])));
    let stderr = field.end(process);
    warned(&stderr, ["nftables, because", "CAP_BPF"]);
    field.assert_recorded("kernel");

    // In this test's own mount namespace.
    let nft = field.lab.on(&field.runner, "sh", &["-c", "PATH=$PATH:/usr/sbin:/sbin command -v nft"]);
    let none = None::<&str>;
    mount(Some("/dev/null"), nft.stdout.trim(), none, MsFlags::MS_BIND, none).expect("a bind mount");
    let process = field.run(without_bpf(&field.start(&[])));
    let stderr = field.end(process);
    warned(&stderr, ["the user-space WireGuard device, because", "nft"]);
    field.assert_recorded("netns");

    // What was asked for by name is not replaced.
    for (enforcer, says) in [("ebpf", "CAP_BPF"), ("nftables", "nft")] {
        let command = without_bpf(&field.start(&["--enforcer", enforcer]));
        let out = Process::spawn(command, "agent", field.lab.dir.path()).finish(LIMIT);
        assert_ne!(out.code, 0);
        let error = out.stderr.lines().find(|line| line.starts_with("error:")).unwrap_or_default();
        assert!(error.contains(says) && out.stdout.is_empty(), "{}", out.stderr);
    }
    remains::assert_none(&field.runner);
}

#[test]
fn the_userspace_filter_refuses_rules_that_take_another_link() {
    let field = Field::new();
    for rule in ["0.0.0.0/0", "192.168.50.1/32:8080"] {
        let command = field.start(&["--enforcer", "userspace", "--egress-allow", rule]);
        let out = Process::spawn(command, "agent", field.lab.dir.path()).finish(LIMIT);
        assert_ne!(out.code, 0, "{rule}: {}", out.stderr);
        let error = out.stderr.lines().find(|line| line.starts_with("error:")).unwrap_or_default();
        assert!(error.contains("take --enforcer ebpf or nftables"), "{rule}: {}", out.stderr);
        remains::assert_none(&field.runner);
    }
}
