//! How an agent ends: by itself, asked to, or killed; and what its supervisor then says.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    time::Duration,
};

use lattice_tests::{Host, Lab, Process, agent, remains};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);
const STUBBORN: &str = "import signal,time\nfor s in (1,2,3,15): signal.signal(s, lambda n, f: print('got', n, flush=True))\nprint('deaf', flush=True)\nwhile True: time.sleep(1)";

fn python(lab: &Lab, host: &Host, script: &str) -> Command {
    let mut command = agent::start(lab, host, "agent", &[]);
    command.args(["--agent-binary", "/usr/bin/python3", "--", "-c", script]);
    command
}

#[test]
fn every_exit_code_is_the_agents_own() {
    let mut lab = Lab::start();
    let host = lab.host();
    // 128 is what runsc itself fails with.
    for code in [0, 1, 64, 127, 128, 137, 255] {
        let command = python(&lab, &host, &format!("import os; os._exit({code})"));
        let out = Process::spawn(command, "agent", lab.dir.path()).finish(LIMIT);
        assert_eq!(out.code, code, "{}", out.stderr);
    }
    let out = Process::spawn(python(&lab, &host, "import os; os.abort()"), "agent", lab.dir.path());
    assert_eq!(out.finish(LIMIT).code, 128 + 6);
    remains::assert_none(&host);
}

#[test]
fn an_agent_that_does_not_end_when_asked_is_killed_at_the_next_signal() {
    let mut lab = Lab::start();
    let host = lab.host();
    for (first, second) in [(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGHUP, Signal::SIGINT)] {
        let mut process = Process::spawn(python(&lab, &host, STUBBORN), "agent", lab.dir.path());
        process.wait_for("deaf", LIMIT);
        process.signal(first);
        process.wait_for(&format!("got {}", first as i32), LIMIT);
        process.signal(second);
        let out = process.finish(LIMIT);
        assert_eq!(out.code, 137, "{}", out.stderr);
        remains::assert_none(&host);
    }
}

#[test]
fn an_agent_that_does_not_end_when_asked_is_killed_in_the_end() {
    let mut lab = Lab::start();
    let host = lab.host();
    let mut process = Process::spawn(python(&lab, &host, STUBBORN), "agent", lab.dir.path());
    process.wait_for("deaf", LIMIT);
    process.signal(Signal::SIGTERM);
    let out = process.finish(LIMIT);
    assert_eq!(out.code, 137, "{}", out.stderr);
    assert!(out.stdout.contains("got 15"), "{}", out.stdout);
    remains::assert_none(&host);
}

#[test]
fn what_an_agent_leaves_running_ends_with_it() {
    let mut lab = Lab::start();
    let host = lab.host();
    let script = "import os,time\nfor _ in range(3):\n  if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n      time.sleep(600)\n    os._exit(0)\nos._exit(3)";
    let out = Process::spawn(python(&lab, &host, script), "agent", lab.dir.path()).finish(LIMIT);
    assert_eq!(out.code, 3, "{}", out.stderr);
    remains::assert_none(&host);
}

/// Whoever reads the progress may go away at any time.
#[test]
fn a_closed_stderr_ends_nothing() {
    let mut lab = Lab::start();
    let host = lab.host();
    let mut command = python(&lab, &host, "print('done')");
    command.env("LATTICE_LOG", "debug").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert_eq!((child.wait().unwrap().code(), stdout.as_str()), (Some(0), "done\n"));
    remains::assert_none(&host);
}

#[test]
fn input_reaches_the_agent_from_a_pipe_and_from_a_terminal() {
    let mut lab = Lab::start();
    let host = lab.host();
    let script = "import sys; print(sys.stdin.readline().strip().upper())";
    let text = host.dir.join("input");
    std::fs::write(&text, "hello\n").unwrap();
    let mut piped = python(&lab, &host, script);
    piped.stdin(std::fs::File::open(&text).unwrap());
    let out = Process::spawn(piped, "agent", lab.dir.path()).finish(LIMIT);
    assert_eq!(out.stdout, "HELLO\n", "{}", out.stderr);

    let typed = python(&lab, &host, script);
    let words = std::iter::once(typed.get_program()).chain(typed.get_args());
    let line: Vec<String> =
        words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))).collect();
    let line = line.join(" ");
    assert!(on_terminal(&typed, &line).contains("HELLO"));
    // In the background it cannot be typed to; it must go on all the same.
    let shown = on_terminal(&typed, &format!("set -m; {line} & wait $!; echo ended with $?"));
    assert!(!shown.contains("HELLO") && shown.contains("ended with 0"), "{shown}");
    remains::assert_none(&host);
}

/// Runs `line` on a terminal of its own, in the environment of `command`, types `hello`, and returns what was shown.
fn on_terminal(command: &Command, line: &str) -> String {
    let mut script = Command::new("script");
    script.args(["-qec", line, "/dev/null"]).env("SHELL", "/bin/bash");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script(1)");
    let mut keyboard = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut keyboard, b"hello\n").expect("a pipe");
    let mut shown = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut shown).expect("text");
    child.wait().expect("an end");
    shown
}

#[test]
fn keys_stay_out_of_core_dumps_command_lines_and_logs() {
    let mut lab = Lab::start();
    let host = lab.host();
    let mut command = python(&lab, &host, "import time; time.sleep(60)");
    command.env("LATTICE_LOG", "trace");
    let mut process = Process::spawn(command, "agent", lab.dir.path());
    process.wait_for("] agent ", LIMIT);
    // A kernel that makes no core dumps has no such file.
    if let Ok(filter) = std::fs::read_to_string(format!("/proc/{}/coredump_filter", process.pid())) {
        assert_eq!(u32::from_str_radix(filter.trim(), 16), Ok(0));
    }
    let stored = std::fs::read_to_string(host.dir.join("etc/sandbox-credentials.json")).unwrap();
    let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
    let token = std::fs::read_to_string(host.dir.join("token")).unwrap();
    let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid())).unwrap();
    let (_, logged) = process.output();
    let logged = logged + &command_line;
    for secret in [&stored["nats_seed"], &stored["wireguard_private_key"]] {
        assert!(!logged.contains(secret.as_str().unwrap()), "a key is in the log");
    }
    assert!(!logged.contains(token.trim()), "the token is in the log");
    process.signal(Signal::SIGTERM);
    process.finish(LIMIT);
    remains::assert_none(&host);
}
