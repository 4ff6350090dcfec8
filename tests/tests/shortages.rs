//! A machine that lacks something, or has no room: one line with the cause and its own exit code, nothing left, and
//! what is lost is counted.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use lattice_tests::{Host, Lab, Output, Process, agent, remains, tools};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const INTERNAL: i32 = 70;
const KERNEL: i32 = 71;
const PROGRAM: i32 = 72;
const PRIVILEGE: i32 = 77;
const CREDENTIALS: i32 = 78;

/// Sends one datagram to each of `n` ports that no rule names, then waits for a line.
const DENIED: &str = "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.setblocking(False)\nprint('begin',flush=True);sys.stdin.readline()\nn=int(sys.argv[1])\nfor port in range(1,n+1):\n  for _ in range(3):\n    try: s.sendto(b'x',('10.42.77.77',port));break\n    except OSError: pass\nprint('done',flush=True);sys.stdin.readline()";

fn start(lab: &Lab, host: &Host, binary: &str, args: &[&str]) -> Command {
    let mut command = agent::start(lab, host, "agent", &[]);
    command.args(["--agent-binary", binary, "--"]).args(args);
    command
}

/// `command` with `before` put in front of the first argument that is `program`, or of all of it.
fn prefixed(command: &Command, before: &[&str], program: Option<&Path>) -> Command {
    let mut words: Vec<OsString> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(Into::into).collect();
    let at = program
        .map_or(0, |program| words.iter().position(|word| word == program.as_os_str()).expect("the program"));
    words.splice(at..at, before.iter().map(Into::into));
    let mut new = Command::new(&words[0]);
    new.args(&words[1..]).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => new.env(name, value),
            None => new.env_remove(name),
        };
    }
    new
}

/// `command` in a mount namespace in which `dir` is a file system of `size`.
fn small(command: &Command, dir: &Path, size: &str) -> Command {
    fs::create_dir_all(dir).expect("a directory");
    let script = format!("mount -t tmpfs -o mode=700,size={size} none '{}' && exec \"$@\"", dir.display());
    prefixed(command, &["unshare", "--mount", "sh", "-c", &script, "sh"], None)
}

fn finish(lab: &Lab, command: Command) -> Output {
    Process::spawn(command, "agent", lab.dir.path()).finish(LIMIT)
}

fn check(out: &Output, code: i32, says: &str) {
    assert_eq!(out.code, code, "{}", out.stderr);
    let errors: Vec<&str> = out.stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert!(errors.len() == 1 && errors[0].contains(says), "expected {says:?} in {:?}", out.stderr);
}

#[test]
fn a_full_disk_under_the_credentials_costs_no_token() {
    let mut lab = Lab::start();
    let host = lab.host();
    let command = start(&lab, &host, "/bin/true", &[]);
    let out = finish(&lab, small(&command, &host.dir.join("etc"), "4k"));
    check(&out, CREDENTIALS, "cannot write credentials");
    remains::assert_none(&host);
    // The same command line, with the same token in it.
    let out = finish(&lab, prefixed(&command, &[], None));
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.stderr.contains("enrolled"), "{}", out.stderr);
    let left: Vec<_> = fs::read_dir(host.dir.join("etc")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_full_disk_under_the_state_directory_ends_the_start() {
    let mut lab = Lab::start();
    let host = lab.host();
    let out = finish(&lab, small(&start(&lab, &host, "/bin/true", &[]), &host.dir.join("run"), "4k"));
    check(&out, INTERNAL, "No space left");
    remains::assert_none(&host);
}

#[test]
fn a_full_disk_under_the_audit_file_is_a_counted_gap_and_the_policy_holds() {
    let mut lab = Lab::start();
    let host = lab.host();
    let disk = host.dir.join("disk");
    let mut command = lab.lattice(&host);
    command.args(["sandbox", "start", "--mode", "gvisor", "--name", "agent", "--agent-rootfs"]);
    command.arg(tools::rootfs()).arg("--token-file").arg(lab.token_file(&host));
    command.arg("--audit-file").arg(disk.join("audit.jsonl"));
    command.args(["--agent-binary", "/usr/bin/python3", "--", "-c", DENIED, "300"]);
    let out = finish(&lab, small(&command, &disk, "16k"));
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.stderr.contains("cannot write flow records; they are counted as a gap"), "{}", out.stderr);
    assert!(out.stderr.contains("flow records could not be written"), "{}", out.stderr);
    remains::assert_none(&host);
}

#[test]
fn verdicts_that_come_too_fast_are_a_counted_gap() {
    const SENT: u64 = 6000;
    let mut lab = Lab::start();
    let host = lab.host();
    let mut command = start(&lab, &host, "/usr/bin/python3", &["-c", DENIED, &SENT.to_string()]);
    // Pipes reach the agent itself, also while its supervisor stands still.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (mut keyboard, screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(screen).lines();
    let mut go = || std::io::Write::write_all(&mut keyboard, b"\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "begin");
    let supervisor = Pid::from_raw(child.id().cast_signed());
    kill(supervisor, Signal::SIGSTOP).unwrap();
    go();
    assert_eq!(lines.next().unwrap().unwrap(), "done");
    kill(supervisor, Signal::SIGCONT).unwrap();
    go();
    assert!(child.wait().unwrap().success());

    let audit = host.dir.join("audit.jsonl");
    let text = fs::read_to_string(&audit).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lost: u64 = records.iter().filter_map(|record| record["lost"].as_u64()).sum();
    let told = records.iter().filter(|record| record["dstIP"] == "10.42.77.77").count() as u64;
    assert!(lost > 0 && told > 0 && told + lost >= SENT, "{told} told, {lost} lost, of {SENT}");
    let out = lab.run(&host, &["audit", "verify", audit.to_str().unwrap()]);
    assert!(out.code == 0 && !out.stdout.contains(" 0 gaps"), "{}{}", out.stdout, out.stderr);
    let out = lab.run(&host, &["audit", "tail", "--file", audit.to_str().unwrap(), "-n", "100000"]);
    assert!(out.stdout.contains("records lost: verdicts came faster"), "{}", out.stdout.len());
    remains::assert_none(&host);
}

#[test]
fn a_missing_capability_is_named_before_a_token_is_spent() {
    let mut lab = Lab::start();
    let host = lab.host();
    let command = start(&lab, &host, "/bin/true", &[]);
    let lattice = tools::built("lattice");
    for (dropped, named) in
        [("-bpf,-sys_admin", "CAP_SYS_ADMIN"), ("-net_admin", "CAP_NET_ADMIN"), ("-setpcap", "CAP_SETPCAP")]
    {
        let set = format!("--bounding-set={dropped}");
        let out = finish(&lab, prefixed(&command, &["setpriv", &set, "--"], Some(&lattice)));
        check(&out, PRIVILEGE, named);
        remains::assert_none(&host);
    }
    assert!(!host.dir.join("etc").exists());
}

#[test]
fn a_missing_tun_device_or_runsc_is_named_before_a_token_is_spent() {
    let mut lab = Lab::start();
    let host = lab.host();
    let mut command = agent::start(&lab, &host, "agent", &[]);
    command.args(["--wireguard", "userspace", "--agent-binary", "/bin/true"]);
    let hidden = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$@\"", "sh"];
    check(&finish(&lab, prefixed(&command, &hidden, None)), KERNEL, "/dev/net/tun");
    remains::assert_none(&host);
    let nowhere = ["env", "-u", "LATTICE_RUNSC", "PATH=/nonexistent"];
    let out = finish(&lab, prefixed(&command, &nowhere, Some(&tools::built("lattice"))));
    check(&out, PROGRAM, "runsc is not on PATH");
    remains::assert_none(&host);
    assert!(!host.dir.join("etc").exists());
}
