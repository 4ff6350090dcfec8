//! The second fence in pods that containerd runs: denied calls of the agent fail at once, are on record, and the group whose calls are
//! policed goes with the pod, however that ends.

use std::fs;

use lattice_audit::FlowRecord;
use lattice_policy::{Action, Reason};
use lattice_tests::containerd::Pod;

use crate::{
    containerd_node::{Node, assert_gone},
    world::wait_for,
};

const PROGRAM: &str = include_str!("../calls.py");
const POLICED: &str = "+calls (kernel)";

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
