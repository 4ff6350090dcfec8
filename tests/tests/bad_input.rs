//! Every wrong word on the command line is one line that names the cause and the remedy, with its own exit code, and leaves nothing behind.

use std::fs;

use lattice_tests::{Host, Lab, Output, Process, agent, remains, tools};

const USAGE: i32 = 64;
const INPUT: i32 = 66;
const TOKEN: i32 = 67;
const SERVER: i32 = 69;
const PROGRAM: i32 = 72;
const TAKEN: i32 = 73;
const PRIVILEGE: i32 = 77;
const CREDENTIALS: i32 = 78;

/// Runs and checks: exit code, one line on stderr that begins with `error:` and contains `says`, nothing left.
fn refused(lab: &Lab, host: &Host, args: &[&str], code: i32, says: &str) -> Output {
    let out = lab.run(host, args);
    check(host, &out, code, says, &format!("{args:?}"));
    out
}

fn check(host: &Host, out: &Output, code: i32, says: &str, what: &str) {
    assert_eq!(out.code, code, "{what}: {}", out.stderr);
    assert!(out.stderr.contains(says), "{what}: expected {says:?} in {:?}", out.stderr);
    if code != USAGE || out.stderr.starts_with("error: --") {
        let errors = out.stderr.lines().filter(|line| line.starts_with("error:")).count();
        assert_eq!(errors, 1, "{what}: one line, not {:?}", out.stderr);
    }
    assert_eq!(out.stdout, "", "{what}: errors go to stderr");
    remains::assert_none(host);
}

#[test]
fn wrong_flags_are_refused_before_anything_is_made() {
    let mut lab = Lab::bare();
    let host = lab.host();
    let rootfs = tools::rootfs();
    let rootfs = rootfs.to_str().unwrap();
    let gvisor = ["sandbox", "start", "--mode", "gvisor", "--name", "a"];
    let with = |more: &[&'static str]| [&gvisor[..], more].concat();
    let full = |more: &[&'static str]| {
        let mut all: Vec<&str> = gvisor.to_vec();
        all.extend(["--agent-rootfs", rootfs, "--agent-binary", "/bin/true"]);
        all.extend(more);
        all
    };
    refused(&lab, &host, &with(&[]), USAGE, "--agent-rootfs is required for gvisor mode");
    refused(
        &lab,
        &host,
        &with(&["--agent-rootfs", "/"]),
        USAGE,
        "--agent-binary is required for gvisor mode",
    );
    refused(&lab, &host, &["sandbox", "start", "--name", "a"], TOKEN, "no token");
    refused(&lab, &host, &["sandbox", "start", "--mode", "vm", "--name", "a"], USAGE, "invalid value 'vm'");
    refused(&lab, &host, &["sandbox", "start", "--mode", "gvisor"], USAGE, "--name");
    refused(&lab, &host, &["sandbox", "stat"], USAGE, "unrecognized subcommand");
    for cidr in
        ["10.42.0.0/33", "10.42.0", "0x7f.1", "10.0.0.0/8:0", "10.0.0.1/8", "", "tcp:", "10.0.0.0/8:9-1"]
    {
        let mut args = full(&["--egress-allow"]);
        args.push(cidr);
        refused(&lab, &host, &args, USAGE, "invalid egress CIDR");
    }
    refused(&lab, &host, &full(&["--forward", "8080:127.0.0.1:8080"]), USAGE, "belong to pod mode");
    refused(&lab, &host, &full(&["--user", "root"]), USAGE, "--user");
    refused(&lab, &host, &full(&["--memory", "lots"]), USAGE, "--memory");
    refused(&lab, &host, &full(&["--cpus", "0"]), USAGE, "--cpus");
    refused(&lab, &host, &full(&["--env", "NOVALUE"]), USAGE, "--env");
    refused(&lab, &host, &full(&["--mtu", "9000"]), USAGE, "--mtu");
    refused(&lab, &host, &full(&["--platform", "xen"]), USAGE, "--platform");
    refused(&lab, &host, &full(&["--wireguard", "quantum"]), USAGE, "--wireguard");
    refused(&lab, &host, &full(&["--token", "lt-abc"]), USAGE, "not an enrollment token");
    refused(&lab, &host, &full(&["--token-file", "/nonexistent"]), USAGE, "--token-file /nonexistent");
    refused(&lab, &host, &full(&["--runsc", "/nonexistent/runsc"]), PROGRAM, "runsc");
    for name in ["a/b", "..", "*", ">", "A", "", "a\u{7}b", &"a".repeat(64)] {
        let mut args = full(&[]);
        args[5] = name;
        refused(&lab, &host, &args, USAGE, "--name");
    }
}

#[test]
fn a_rootfs_or_binary_that_is_not_there_is_named() {
    let mut lab = Lab::bare();
    let host = lab.host();
    let rootfs = tools::rootfs();
    let rootfs = rootfs.to_str().unwrap();
    let start = |rootfs: &str, binary: &str, code, says: &str| {
        let args = [
            "sandbox",
            "start",
            "--mode",
            "gvisor",
            "--name",
            "a",
            "--agent-rootfs",
            rootfs,
            "--agent-binary",
            binary,
        ];
        refused(&lab, &host, &args, code, says);
    };
    start("/nonexistent", "/bin/true", INPUT, "/nonexistent");
    start("/etc/hostname", "/bin/true", INPUT, "/etc/hostname");
    start(rootfs, "/usr/bin/nothing", INPUT, "/usr/bin/nothing");
    start(rootfs, "/etc/passwd", INPUT, "/etc/passwd");
    start(rootfs, "bin/true", INPUT, "bin/true");
    start(rootfs, "/../../../bin/bash", INPUT, "bash");
}

#[test]
fn no_root_no_server_no_nats_no_latticed() {
    let mut lab = Lab::bare();
    let host = lab.host();
    let without_root = |lab: &Lab| {
        let mut command =
            lattice_tests::process::command(&host.netns.path(), std::path::Path::new("setpriv"));
        command.args(["--reuid", "65534", "--clear-groups", "--"]).arg(tools::built("lattice"));
        command.args(["up", "--name", "a"]);
        Process::spawn(command, "unprivileged", lab.dir.path()).finish(std::time::Duration::from_secs(10))
    };
    fs::set_permissions(lab.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    check(&host, &without_root(&lab), PRIVILEGE, "needs root", "as nobody");

    fs::write(host.dir.join("token"), token()).unwrap();
    let token = host.dir.join("token");
    let token = token.to_str().unwrap();
    refused(
        &lab,
        &host,
        &["up", "--name", "a", "--token-file", token],
        SERVER,
        "cannot reach the server http://192.168.50.1:8080",
    );
    refused(
        &lab,
        &host,
        &["up", "--name", "a", "--server-url", "192.168.50.1", "--token-file", token],
        USAGE,
        "--server-url",
    );
    refused(&lab, &host, &["up", "--name", "a"], TOKEN, "no token");
    lab.start_latticed();
    refused(&lab, &host, &["up", "--name", "a", "--token-file", token], TOKEN, "token");
    assert!(!host.dir.join("etc/node-credentials.json").exists(), "a refused enrolment stores nothing");
}

/// A well-formed token that no server knows.
fn token() -> String {
    lattice_wire::Token::from_random([1; 7], [2; 25]).expose()
}

#[test]
fn tokens_and_names_are_used_once_and_credentials_are_their_owners() {
    let mut lab = Lab::start();
    let (first, second) = (lab.host(), lab.host());
    let token = lab.token_file(&first);
    let token = token.to_str().unwrap();
    let (node, _) = lab.up(&first, "one");
    let same_host = lab.run(&first, &["up", "--name", "one"]);
    assert_eq!(
        (same_host.code, same_host.stderr.contains("already runs on this host")),
        (TAKEN, true),
        "{}",
        same_host.stderr
    );
    let fresh = lab.token_file(&second);
    refused(&lab, &second, &["up", "--name", "one", "--token-file", fresh.to_str().unwrap()], TAKEN, "one");
    // The refused name has not consumed the token.
    let (other, _) = lab.up(&second, "two");
    drop(other);
    drop(node);
    let third = lab.host();
    let spent = fresh.to_str().unwrap();
    refused(&lab, &third, &["up", "--name", "three", "--token-file", spent], TOKEN, "no uses left");
    let id = lab.admin(&["token", "list", "--workspace", "demo", "-o", "json"]);
    assert!(!id.contains("secret"), "{id}");
    let last = lab.token_file(&third);
    let text = fs::read_to_string(&last).unwrap();
    lab.admin(&["token", "revoke", text.split('-').nth(1).unwrap()]);
    refused(
        &lab,
        &third,
        &["up", "--name", "three", "--token-file", last.to_str().unwrap()],
        TOKEN,
        "revoked",
    );
    let other_name = lab.run(&second, &["up", "--name", "else"]);
    assert_eq!(
        (other_name.code, other_name.stderr.contains("belong to")),
        (CREDENTIALS, true),
        "{}",
        other_name.stderr
    );
    let _ = token;
}

#[test]
fn a_token_in_argv_works_with_a_warning_and_an_audit_file_that_is_a_link_is_refused() {
    let mut lab = Lab::start();
    let host = lab.host();
    let token = fs::read_to_string(lab.token_file(&host)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", host.dir.join("audit.jsonl")).unwrap();
    let mut command = lab.lattice(&host);
    command.args([
        "sandbox",
        "start",
        "--mode",
        "gvisor",
        "--name",
        "a",
        "--agent-binary",
        "/bin/true",
        "--token",
        token.trim(),
    ]);
    command.arg("--agent-rootfs").arg(tools::rootfs()).arg("--audit-file").arg(host.dir.join("audit.jsonl"));
    let out = Process::spawn(command, "a", lab.dir.path()).finish(std::time::Duration::from_secs(30));
    assert!(out.stderr.contains("warning: --token is visible"), "{}", out.stderr);
    check(&host, &out, INPUT, "audit", "a linked audit file");
    // It was admitted before it failed: the next start resumes.
    fs::remove_file(host.dir.join("audit.jsonl")).unwrap();
    let mut again = agent::start(&lab, &host, "a", &[]);
    again.args(["--agent-binary", "/bin/true"]);
    let out = Process::spawn(again, "a", lab.dir.path()).finish(std::time::Duration::from_secs(30));
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.stderr.contains("resumed"), "{}", out.stderr);
    remains::assert_none(&host);
}
