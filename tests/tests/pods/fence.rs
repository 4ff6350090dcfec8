//! The second fence in pods that containerd runs: denied calls of the agent fail at once, are on record, and the group whose calls are
//! policed goes with the pod, however that ends.

use std::{fs, path::PathBuf, time::Duration};

use lattice_audit::{Entry, FlowRecord};
use lattice_policy::{Action, Reason};
use lattice_shim::place::Record;
use lattice_tests::{
    Lab, Process,
    containerd::{Container, Daemon, Options, Pod, Runtime},
    tools,
};

use crate::world::wait_for;

const LIMIT: Duration = Duration::from_secs(60);
const PROGRAM: &str = include_str!("../calls.py");
const POLICED: &str = "+calls (kernel)";

/// A node of a lab, with a tool that its pods may reach at port 8080.
struct Node {
    // The pods end before the network they are in.
    daemon: Daemon,
    tool: String,
    token: String,
    _parts: Vec<Process>,
    _lab: Lab,
}

impl Node {
    fn new(has_token: bool) -> Self {
        let mut lab = Lab::start();
        let daemon = Daemon::start(Runtime::Lattice);
        let tool = lab.host();
        let (up, tool_ip) = lab.up(&tool, "tool");
        let parts = vec![up, lab.serve_http(&tool, 8080)];
        let token = lab.admin(&["token", "create", "--workspace", "demo", "--uses", "10"]);
        let mut more = format!(
            "wireguard = \"auto\"\nenforcer = \"ebpf\"\negress_allow = [\"10.42.0.0/16\"]\negress_default = [\"tcp:{tool_ip}/32:8080\"]\n"
        );
        if has_token {
            let file = daemon.dir.path().join("token");
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::write(&file, &token).and_then(|()| fs::set_permissions(&file, private)).unwrap();
            more.push_str(&format!("token_file = \"{}\"\n", file.display()));
        }
        daemon.join(&mut lab, &more);
        Self { daemon, tool: tool_ip.to_string(), token, _parts: parts, _lab: lab }
    }

    /// A container with the host's python.
    fn agent(&self, pod: &Pod<'_>, with_token: bool) -> Container {
        let mounts = ["/usr", "/lib", "/lib64"].map(|dir| (PathBuf::from(dir), dir.to_owned(), true));
        let token = with_token.then(|| ("LATTICE_TOKEN".to_owned(), self.token.clone()));
        let env = token.into_iter().collect();
        pod.start("agent", &Options { mounts: mounts.to_vec(), env, ..Options::default() })
    }

    fn record(&self, pod: &Pod<'_>) -> Record {
        let path = self.daemon.inside.path(format!("/run/lattice/shim/k8s.io/{}/pod.json", pod.id));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// The group whose calls are policed: ours, or runsc's where it has version 2.
    fn group(&self, pod: &Pod<'_>) -> PathBuf {
        let record = self.record(pod);
        let groups = record.fence.iter().chain(&record.cgroups).map(|group| self.daemon.inside.path(group));
        groups.into_iter().find(|group| group.join("cgroup.events").exists()).expect("a group of version 2")
    }

    fn lattice(&self, words: &[&str]) -> String {
        let out = self.daemon.inside.run(tools::built("lattice"), words, LIMIT);
        out.stdout + &out.stderr
    }

    fn flows(&self, peer: &str) -> Vec<FlowRecord> {
        let file = self.daemon.dir.path().join(format!("audit/{peer}.jsonl"));
        let entries = lattice_audit::read(&file).unwrap();
        let flows = entries.filter_map(|entry| match entry.unwrap() {
            Entry::Flow(flow) => Some(flow),
            Entry::Gap(_) => None,
        });
        flows.collect()
    }
}

/// Whether this machine has a version 2 hierarchy.
fn has_fence() -> bool {
    let has = lattice_ebpf::probe().is_ok_and(|support| support.cgroup);
    if !has {
        println!("SKIPPED: the cgroup hooks: no cgroup v2 is mounted that takes programs");
    }
    has
}

#[test]
fn a_pods_denied_calls_fail_at_once_and_are_on_record() {
    if has_fence() {
        // With the node's token the policy is there before the sandbox, with the agent's own after it.
        policed(true);
        policed(false);
    }
}

fn policed(has_token: bool) {
    let node = Node::new(has_token);
    let pod = Pod::run(&node.daemon);
    let agent = node.agent(&pod, !has_token);
    let tool = &node.tool;
    let calls = [
        (format!("tcp:{tool}:8080"), "ok"),
        (format!("tcp:{tool}:9090"), "EPERM"),
        ("tcp:10.89.0.1:80".into(), "EPERM"),
        ("tcp:169.254.169.254:80".into(), "EPERM"),
        ("tcp:2001:db8::1:443".into(), "EPERM"),
        (format!("send:{tool}:8080"), "EPERM"),
        ("tcp:127.0.0.1:1".into(), "ECONNREFUSED"),
    ];
    let words: Vec<&str> = calls.iter().map(|(word, _)| word.as_str()).collect();
    let answer = agent.exec(&[&["/usr/bin/python3", "-c", PROGRAM][..], &words].concat(), 60).unwrap();
    let out = String::from_utf8_lossy(&answer.stdout).into_owned();
    let expected: Vec<String> = calls.iter().map(|(word, result)| format!("{word} {result}")).collect();
    let log = node.daemon.log();
    assert_eq!(out.lines().collect::<Vec<_>>(), expected, "{}{log}", String::from_utf8_lossy(&answer.stderr));
    // The limits of the pod's own group are the kernel's in any case: what is policed holds the whole sandbox.
    let (record, group) = (node.record(&pod), node.group(&pod));
    let within = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert!(within.lines().count() >= 2, "sentry and gofer: {within:?} in {}", group.display());
    let is_v2 = node.daemon.inside.path("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(record.fence.is_none(), is_v2, "ours only where runsc makes none: {record:?}");

    let peer = record.peer.unwrap();
    let status = node.lattice(&["status"]);
    assert!(status.contains(POLICED), "{status}");
    let rules = node.lattice(&["sandbox", "rules", &peer, "-o", "json"]);
    assert!(rules.contains(POLICED), "{rules}");
    pod.remove();
    let flows = node.flows(&peer);
    for (ip, port, proto, reason) in [
        (tool.as_str(), 9090, "tcp", Reason::DefaultDeny),
        ("169.254.169.254", 80, "tcp", Reason::RuleDeny),
        ("2001:db8::1", 443, "tcp", Reason::DefaultDeny),
        (tool.as_str(), 8080, "udp", Reason::DefaultDeny),
    ] {
        let to = |flow: &&FlowRecord| {
            flow.dst_ip == ip.parse::<std::net::IpAddr>().unwrap()
                && (flow.dst_port, &*flow.proto) == (port, proto)
        };
        let found: Vec<_> = flows.iter().filter(to).collect();
        assert_eq!(found.len(), 1, "{ip} {port}: {found:#?}");
        assert_eq!((found[0].action, found[0].reason), (Action::Deny, reason), "{found:?}");
        assert!(found[0].src_ip.is_unspecified(), "there was a packet: {found:?}");
    }
    assert!(!group.exists(), "{}", group.display());
    assert_gone(&node, &peer);
}

/// The group is there as long as anything of the pod is, and is removed by whoever ends it.
#[test]
fn the_policed_group_goes_with_a_killed_shim_or_sandbox() {
    if !has_fence() {
        return;
    }
    let node = Node::new(true);
    // A second signal comes while the shim ends its pod.
    let cases: [(&str, &[&str]); 3] = [
        ("containerd-shim-", &["KILL"]),
        ("containerd-shim-", &["TERM", "TERM"]),
        ("runsc-sandbox", &["KILL"]),
    ];
    for (victim, signals) in cases {
        let pod = Pod::run(&node.daemon);
        let agent = node.agent(&pod, false);
        let (group, peer) = (node.group(&pod), node.record(&pod).peer.unwrap());
        assert!(group.is_dir());
        let first = |line: &str| line.split(" -").next().is_some_and(|first| first.contains(victim));
        let tasks = node.daemon.inside.processes();
        let killed: Vec<_> = tasks.iter().filter(|task| first(&task.line)).collect();
        assert!(!killed.is_empty(), "{tasks:#?}");
        for (task, signal) in killed.iter().flat_map(|task| signals.iter().map(move |signal| (task, signal)))
        {
            node.daemon.inside.kill(signal, task.pid);
        }
        wait_for("the container to be told ended", || agent.state() == "exited");
        wait_for("the pod to be removed", || pod.try_remove().is_ok());
        wait_for("the group to go", || !group.exists());
        assert_gone(&node, &peer);
    }
}

/// No pod's group is left, in whatever hierarchy, nor its state.
fn assert_gone(node: &Node, peer: &str) {
    let state = node.daemon.inside.path(format!("/run/lattice/sandboxes/{peer}"));
    wait_for("the sandbox's state to go", || !state.exists());
    wait_for("the pod's state to go", || {
        let pods = node.daemon.inside.path("/run/lattice/shim/k8s.io");
        fs::read_dir(pods).map_or(true, |mut pods| pods.next().is_none())
    });
}
