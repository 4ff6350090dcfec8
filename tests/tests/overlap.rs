//! The sandbox is made while phase one goes on: whatever becomes of the one, the agent runs only under its policy, and nothing stays.

use std::{fs, thread, time::Duration};

use lattice_tests::{Host, Lab, Process, agent, lab::wait_until, process::children, remains};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A host that has been enrolled, and nats-server, without which no later start of its sandbox gets past its identity.
fn enrolled(lab: &mut Lab) -> (Host, Pid) {
    let host = lab.host();
    let out = Process::spawn(sandbox(lab, &host, &[], &["/bin/true"]), "a", lab.dir.path()).finish(LIMIT);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let nats = children(lab.latticed().pid());
    (host, Pid::from_raw(nats[0]))
}

fn sandbox(lab: &Lab, host: &Host, rules: &[&str], words: &[&str]) -> std::process::Command {
    let mut command = agent::start(lab, host, "a", rules);
    command.args(["--agent-binary", words[0], "--"]).args(&words[1..]);
    command
}

/// Starts a sandbox whose identity waits for nats-server, and returns when runsc has made it.
fn made_too_early(lab: &Lab, host: &Host, nats: Pid, rules: &[&str], words: &[&str]) -> Process {
    kill(nats, Signal::SIGSTOP).expect("nats-server");
    let process = Process::spawn(sandbox(lab, host, rules, words), "a", lab.dir.path());
    let bundles = host.dir.join("run/sandboxes/a/agent/runsc");
    let is_made = || {
        let roots =
            fs::read_dir(&bundles).into_iter().flatten().flatten().map(|entry| entry.path().join("root"));
        let mut files = roots.flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
        files.any(|file| file.path().extension().is_some_and(|extension| extension == "state"))
    };
    wait_until(LIMIT, "the sandbox to be made", is_made);
    process
}

#[test]
fn an_agent_waits_for_its_policy_however_long_that_takes() {
    let mut lab = Lab::start();
    let tool = lab.host();
    let (_node, tool_ip) = lab.up(&tool, "tool");
    let _services = [lab.serve_http(&tool, 8080), lab.serve_http(&tool, 9090)];
    let (host, nats) = enrolled(&mut lab);
    let rule = format!("tcp:{tool_ip}/32:8080");
    let words = [
        "/usr/local/bin/demo-agent".to_owned(),
        format!("tcp:{tool_ip}:9090"),
        format!("http:{tool_ip}:8080"),
        "links:".into(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let process = made_too_early(&lab, &host, nats, &[&rule], &words);
    // Several times what it takes to run.
    thread::sleep(Duration::from_secs(2));
    let (out, err) = process.output();
    assert_eq!(out, "", "it ran before its policy was in force: {err}");
    assert!(err.contains("] netns ") && !err.contains("] identity "), "{err}");

    kill(nats, Signal::SIGCONT).unwrap();
    let out = process.finish(LIMIT);
    let attempts = agent::attempts(&out.stdout);
    let results: Vec<&str> = attempts.iter().map(|attempt| attempt.result.as_str()).collect();
    assert!(["EPERM", "ECONNREFUSED"].contains(&results[0]), "{results:?}{}", out.stderr);
    assert_eq!(results[1..], ["ok", "ok"], "{}", out.stderr);
    assert_eq!(attempts[2].detail.as_array().map(Vec::len), Some(2), "lo and wg0: {attempts:?}");
    remains::assert_none(&host);
}

#[test]
fn a_sandbox_without_its_phase_one_is_removed_and_phase_one_says_why() {
    let mut lab = Lab::start();
    let (host, nats) = enrolled(&mut lab);
    let process = made_too_early(&lab, &host, nats, &[], &["/bin/echo", "it ran"]);
    drop(lab.take_latticed());
    let _ = kill(nats, Signal::SIGKILL);
    let out = process.finish(LIMIT);
    assert_eq!((out.code, out.stdout.as_str()), (69, ""), "{}", out.stderr);
    let errors: Vec<&str> = out.stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("error: identity: "), "{}", out.stderr);
    remains::assert_none(&host);
}

#[test]
fn a_kill_while_both_go_on_leaves_no_process_and_the_next_start_removes_the_rest() {
    let mut lab = Lab::start();
    let (host, nats) = enrolled(&mut lab);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let process = made_too_early(&lab, &host, nats, &[], &["/bin/echo", "it ran"]);
        process.signal(signal);
        let out = process.finish(LIMIT);
        assert_eq!((out.code, out.stdout.as_str()), (if signal == Signal::SIGKILL { 137 } else { 75 }, ""));
        let state = host.dir.join("run").display().to_string();
        wait_until(LIMIT, "its processes to be gone", || remains::processes(&state).is_empty());
        kill(nats, Signal::SIGCONT).unwrap();
        if signal == Signal::SIGKILL {
            assert!(!remains::of(&host).is_empty(), "its files are there until somebody removes them");
            let next = sandbox(&lab, &host, &[], &["/bin/echo", "it ran"]);
            let out = Process::spawn(next, "a", lab.dir.path()).finish(LIMIT);
            assert_eq!((out.code, out.stdout.as_str()), (0, "it ran\n"), "{}", out.stderr);
        }
        remains::assert_none(&host);
    }
}
