//! The second fence: what an agent is told of a call that the policy denies, and that it hinders no other.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lattice_audit::FlowRecord;
use lattice_policy::{Action, Reason};
use lattice_tests::{Host, Lab, Output, Process, agent, lab::overlay_ip, remains};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);
const PROGRAM: &str = include_str!("calls.py");
const POLICED: &str = "ebpf/tcx+calls (kernel)";

/// Whether this machine has a version 2 hierarchy; the tests of the fence are skipped without.
fn has_fence() -> bool {
    let has = lattice_ebpf::probe().is_ok_and(|support| support.cgroup);
    if !has {
        println!("SKIPPED: the cgroup hooks: no cgroup v2 is mounted that takes programs");
    }
    has
}

fn python(lab: &Lab, host: &Host, rules: &[&str], words: &[&str]) -> Command {
    let mut command = agent::start(lab, host, "agent", rules);
    command.args(["--agent-binary", "/usr/bin/python3", "--", "-c", PROGRAM]).args(words);
    command
}

fn run(lab: &Lab, command: Command) -> Output {
    let out = Process::spawn(command, "agent", lab.dir.path()).finish(LIMIT);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    out
}

fn records(host: &Host) -> Vec<FlowRecord> {
    let entries = lattice_audit::read(&host.dir.join("audit.jsonl")).expect("the audit file");
    let flows = entries.filter_map(|entry| match entry.expect("a record") {
        lattice_audit::Entry::Flow(flow) => Some(flow),
        lattice_audit::Entry::Gap(_) => None,
    });
    flows.collect()
}

/// The group of the sandbox, by the note that it keeps.
fn group(host: &Host) -> PathBuf {
    let sandboxes = host.dir.join("run/sandboxes/agent/agent/runsc");
    let id = fs::read_dir(sandboxes).expect("a sandbox").flatten().next().expect("a sandbox");
    fs::read_link(id.path().join("cgroup")).expect("its group")
}

#[test]
fn denied_calls_fail_at_once_and_are_on_record_once() {
    if !has_fence() {
        return;
    }
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (_node, tool_ip) = lab.up(&tool, "tool");
    let _service = lab.serve_http(&tool, 8080);
    let rule = format!("tcp:{tool_ip}/32:8080");
    let calls = [
        (format!("tcp:{tool_ip}:8080"), "ok"),
        (format!("tcp:{tool_ip}:9090"), "EPERM"),
        ("tcp:169.254.169.254:80".into(), "EPERM"),
        ("tcp:2001:db8::1:443".into(), "EPERM"),
        ("tcp:::ffff:203.0.113.9:443".into(), "EPERM"),
        (format!("send:{tool_ip}:8080"), "EPERM"),
        ("send:2001:db8::2:53".into(), "EPERM"),
        ("tcp:127.0.0.1:1".into(), "ECONNREFUSED"),
        // It asks for the own address and sends nothing: no attempt, and none on record.
        ("ask:203.0.113.10:9".into(), "ok"),
    ];
    let words: Vec<&str> = calls.iter().map(|(word, _)| word.as_str()).collect();
    let out = run(&lab, python(&lab, &runner, &[&rule], &words));
    let expected: Vec<String> = calls.iter().map(|(word, result)| format!("{word} {result}")).collect();
    assert_eq!(out.stdout.lines().collect::<Vec<_>>(), expected, "{}", out.stderr);
    assert!(out.stderr.contains("calls policed"), "{}", out.stderr);

    let records = records(&runner);
    let of = |ip: &str, port: u16, proto: &str| {
        let to = |r: &&FlowRecord| r.dst_ip == ip.parse::<std::net::IpAddr>().unwrap() && r.dst_port == port;
        records.iter().filter(to).filter(|r| r.proto == proto).collect::<Vec<_>>()
    };
    let tool_ip = tool_ip.to_string();
    for (ip, port, proto, reason) in [
        (tool_ip.as_str(), 9090, "tcp", Reason::DefaultDeny),
        ("169.254.169.254", 80, "tcp", Reason::RuleDeny),
        ("2001:db8::1", 443, "tcp", Reason::DefaultDeny),
        ("203.0.113.9", 443, "tcp", Reason::DefaultDeny),
        (tool_ip.as_str(), 8080, "udp", Reason::DefaultDeny),
        ("2001:db8::2", 53, "udp", Reason::DefaultDeny),
    ] {
        let found = of(ip, port, proto);
        assert_eq!(found.len(), 1, "{ip} {port}: {found:#?}");
        assert_eq!((found[0].action, found[0].reason), (Action::Deny, reason), "{found:?}");
        assert!(found[0].src_ip.is_unspecified(), "there was a packet: {found:?}");
        assert_eq!(found[0].rule.is_some(), reason == Reason::RuleDeny, "{found:?}");
    }
    assert!(of("203.0.113.10", 9, "udp").is_empty());
    let allowed = of(&tool_ip, 8080, "tcp");
    assert_eq!((allowed.len(), allowed[0].action), (1, Action::Allow), "{allowed:?}");
    remains::assert_none(&runner);
}

#[test]
fn servers_answer_and_a_narrower_policy_holds_for_calls() {
    if !has_fence() {
        return;
    }
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (_node, tool_ip) = lab.up(&tool, "tool");
    let _service = lab.serve_http(&tool, 8080);
    let open = ["policy", "add", "serve", "--workspace", "demo", "--selector", "name=agent"];
    lab.admin(&[&open[..], &["--allow-ingress", "udp:{kind=node}:7000"]].concat());
    let words = ["answer:7000", &format!("until-refused:{tool_ip}:8080")];
    let mut running = Process::spawn(
        python(&lab, &runner, &[&format!("tcp:{tool_ip}/32:8080")], &words),
        "agent",
        lab.dir.path(),
    );
    running.wait_for("] agent ", LIMIT);
    running.wait_for("listens", LIMIT);
    let address = overlay_ip(&running.output().1);
    tool.netns
        .run(|| {
            let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            lattice_tests::lab::wait_until(LIMIT, "an answer", || {
                client.send_to(b"ask", (address, 7000)).unwrap();
                let mut got = [0; 16];
                client.recv(&mut got).is_ok_and(|n| got[..n] == *b"answer")
            });
        })
        .unwrap();
    running.wait_for("reached", LIMIT);

    let status = lab.run(&runner, &["status"]).stdout;
    assert!(status.contains(POLICED), "{status}");
    let rules = lab.run(&runner, &["sandbox", "rules", "agent", "-o", "json"]);
    assert!(rules.stdout.contains(POLICED), "{}{}", rules.stdout, rules.stderr);
    let group = group(&runner);
    assert!(group.is_dir(), "{}", group.display());

    let freeze = ["policy", "add", "freeze", "--workspace", "demo", "--selector", "name=agent"];
    lab.admin(&[&freeze[..], &["--deny-egress", &format!("{tool_ip}/32:8080")]].concat());
    running.wait_for("EPERM", LIMIT);
    let out = running.finish(LIMIT);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    let last = records(&runner).into_iter().rfind(|r| r.dst_port == 8080).unwrap();
    assert_eq!((last.action, last.reason), (Action::Deny, Reason::RuleDeny), "{last:?}");
    assert!(last.rule.as_deref().is_some_and(|rule| rule.contains("policy freeze")), "{last:?}");
    assert!(!group.exists(), "{}", group.display());
    remains::assert_none(&runner);
}

#[test]
fn a_killed_run_leaves_a_group_that_doctor_removes() {
    if !has_fence() {
        return;
    }
    let mut lab = Lab::start();
    let runner = lab.host();
    let service = Service::new();
    for limits in [&[][..], &["--memory", "256M", "--cpus", "0.5", "--pids-limit", "512"]] {
        let mut command = agent::start(&lab, &runner, "agent", &[]);
        command.args(limits).args(["--agent-binary", "/bin/sleep", "--", "60"]);
        let is_service = limits.is_empty();
        if is_service {
            let enter = format!("echo 0 > '{}/cgroup.procs'; exec \"$@\"", service.0.display());
            command = after(&enter, &command);
        }
        let mut running = Process::spawn(command, "agent", lab.dir.path());
        running.wait_for("calls policed", LIMIT);
        let group = group(&runner);
        assert!(!is_service || group.parent() == Some(&service.0), "{}", group.display());
        // runsc's own group, where it makes one of version 2.
        let within =
            [group.clone(), group.join("agent")].map(|dir| fs::read_to_string(dir.join("cgroup.procs")));
        let within: String = within.into_iter().flatten().collect();
        assert!(within.lines().count() >= 2, "sentry and gofer: {within:?}");
        if !is_service {
            assert_limited(&group);
        }
        running.signal(Signal::SIGKILL);
        running.finish(LIMIT);
        assert!(group.is_dir(), "nobody has removed it yet");
        let fixed = lab.run(&runner, &["doctor", "--fix"]);
        assert!(fixed.stdout.contains("removed"), "{}{}", fixed.stdout, fixed.stderr);
        assert!(!group.exists(), "{}", group.display());
        let id = group.file_name().unwrap();
        let roots = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let left: Vec<_> = roots.map(|root| root.join(id)).filter(|group| group.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
        remains::assert_none(&runner);
    }
}

/// The kernel holds the sandbox in `group` to 256 MiB, half a processor and 512 tasks besides gVisor's own 96, by whatever version makes
/// limits here.
fn assert_limited(group: &Path) {
    let top = Path::new("/sys/fs/cgroup");
    let id = group.file_name().expect("its name");
    let (memory, cpu, pids) = if top.join("cgroup.controllers").exists() {
        let limited = group.join("agent");
        (limited.join("memory.max"), limited.join("cpu.max"), limited.join("pids.max"))
    } else {
        let of = |controller: &str, file: &str| top.join(controller).join(id).join(file);
        (of("memory", "memory.limit_in_bytes"), of("cpu", "cpu.cfs_quota_us"), of("pids", "pids.max"))
    };
    for (file, limit) in [(memory, "268435456"), (cpu, "50000"), (pids, "608")] {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(text.split_whitespace().next(), Some(limit), "{}", file.display());
    }
}

/// A group as a service manager makes one for `lattice`.
struct Service(PathBuf);

impl Service {
    fn new() -> Self {
        let at = version_2().into_iter().next().expect("version 2 is mounted");
        let dir = Path::new(&at).join(format!("lattice-test-{}", std::process::id()));
        fs::create_dir(&dir).expect("a group");
        Self(dir)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for _ in 0..500 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// `lattice` where version 2 is mounted nowhere.
fn without_version_2(command: &Command) -> Command {
    let hide: String = version_2().iter().map(|at| format!("umount -l '{at}'; ")).collect();
    let inner = after(&format!("{hide} exec \"$@\""), command);
    let mut unshare = Command::new("unshare");
    unshare.arg("-m").arg(inner.get_program()).args(inner.get_args());
    with_environment_of(command, unshare)
}

/// Where it is mounted.
fn version_2() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").expect("the mounts");
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| at.to_owned())
    });
    points.collect()
}

/// `command` as the last words of a shell's `script`, `exec "$@"`.
fn after(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    with_environment_of(command, shell)
}

fn with_environment_of(command: &Command, mut other: Command) -> Command {
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

#[test]
fn without_version_2_packets_alone_are_policed_and_a_start_says_so() {
    let mut lab = Lab::start();
    let runner = lab.host();
    // 300 refusals in a row: what the two fences cost the agent, from the same run.
    let words = ["tcp:203.0.113.1:443", "times:203.0.113.2:443"];
    let command = python(&lab, &runner, &[], &words);
    let plain = run(&lab, without_version_2(&command));
    assert!(plain.stdout.starts_with("tcp:203.0.113.1:443 ECONNREFUSED\n"), "{}", plain.stdout);
    assert!(plain.stderr.contains("calls not policed, only packets: no cgroup v2"), "{}", plain.stderr);
    remains::assert_none(&runner);
    if has_fence() {
        let fenced = run(&lab, python(&lab, &runner, &[], &words));
        assert!(fenced.stdout.starts_with("tcp:203.0.113.1:443 EPERM\n"), "{}", fenced.stdout);
        println!("packets alone: {}\ncalls as well: {}", plain.stdout.trim(), fenced.stdout.trim());
    }
}
