//! `lattice sandbox run` as a user without any privilege: what the command reaches, what it does not, and that nothing outlives it.
//!
//! /dev/net/tun is root's on most machines of ours; where a test has the command isolated, one that everybody may open is put in its place, in a mount
//! namespace that only that run sees.

mod files;
mod gvisor;
mod inbound;
mod outside;
mod place;
mod starting;
mod terminal;

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lattice_tests::{Process, process::patience, remains};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use place::{LIMIT, Place};
use serde_json::Value;

/// Ways out, each with what came of it.
const ATTEMPTS: &str = include_str!("attempts.py");

#[test]
fn the_command_reaches_what_it_may_and_has_no_way_around() {
    let place = Place::new();
    let bus = place.path("home/bus");
    let _bus = UnixListener::bind(&bus).unwrap();
    fs::set_permissions(&bus, fs::Permissions::from_mode(0o666)).unwrap();
    let _service = place.lab.serve_http(&place.host, 7070);
    let outer = std::process::id().to_string();
    let args = [
        "python3",
        "-c",
        ATTEMPTS,
        &place.tool.to_string(),
        &place.host.address.to_string(),
        &place.user.path().display().to_string(),
        &bus.display().to_string(),
        &outer,
    ];
    // The twin, without a sandbox: what is refused below for its own reasons works here.
    let twin = place.lab.on(&place.host, "curl", &["-s", "-m", "5", "http://127.0.0.1:7070/"]);
    assert_eq!(twin.code, 0, "{}", twin.stderr);
    let mut run = place.run(true, &["--isolate", "netns", "--egress-allow", &place.allowed()], &args);
    run.env("LATTICE_PROXY_AUTH", "agent:not-for-the-command");
    let out = place.finish(run);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    assert!(out.stderr.contains("userspace (netns)"), "{}", out.stderr);

    let wanted = [
        ("allowed", "ok"),
        ("allowed by name", "ok"),
        ("denied port", "ConnectionRefusedError 111"),
        ("hub", "ConnectionRefusedError 111"),
        ("world", "ConnectionRefusedError 111"),
        ("world by 6", "ConnectionRefusedError 111"),
        ("metadata", "ConnectionRefusedError 111"),
        ("host loopback", "ConnectionRefusedError 111"),
        ("host address", "ConnectionRefusedError 111"),
        ("bus", "OSError 97"),
        ("bus by a pair", "OSError 97"),
        ("raw", "PermissionError 1"),
        ("packet", "OSError 97"),
        ("vsock", "OSError 97"),
        ("memory of 1", "PermissionError 13"),
        ("environment of 1", "PermissionError 13"),
        ("root of 1", "PermissionError 13"),
        ("descriptors of 1", "PermissionError 13"),
        ("trace 1", "errno 1"),
        ("outer process", "ProcessLookupError 3"),
        ("outer memory", "FileNotFoundError 2"),
        ("list etc", "empty"),
        ("list run", "empty"),
        ("credentials", "FileNotFoundError 2"),
        ("records", "empty"),
        ("forge records", "OSError 30"),
        ("token", "empty"),
        ("unhide", "failed"),
        ("unhide in a namespace", "failed"),
        ("show by binding", "failed"),
        ("link down", "failed"),
        ("new link", "failed"),
        ("route", "failed"),
        ("own namespace", "failed"),
        ("group", "PermissionError 1"),
        ("terminals", "none"),
        ("cgroups", "none"),
        ("capabilities", "none"),
        ("descriptors", "none"),
        ("secrets", "none"),
        ("name", "agent"),
        ("links", "['lo', 'wg0']"),
        ("user", "(12345, 12345)"),
    ];
    for (name, result) in wanted {
        let line = format!("{name}: {result}");
        assert!(out.stdout.lines().any(|found| found == line), "{line:?} in\n{}", out.stdout);
    }
    assert!(out.stdout.contains("other name: gaierror"), "{}", out.stdout);
    assert!(!out.stdout.contains(" late"), "refused at once: {}", out.stdout);

    let records = place.records();
    for (address, port) in [(place.tool, 9090), (Ipv4Addr::new(192, 0, 2, 1), 443)] {
        let denied =
            |r: &&Value| r["dstIP"] == address.to_string() && r["dstPort"] == port && r["action"] == "deny";
        let record =
            records.iter().find(denied).unwrap_or_else(|| panic!("{address}:{port} in {records:#?}"));
        assert_eq!((&record["class"], &record["agent"]), (&"netns".into(), &"agent".into()));
    }
    let audit = place.path("home/audit.jsonl").display().to_string();
    assert_eq!(place.lab.run(&place.host, &["audit", "verify", &audit]).code, 0);
    place.assert_clean();
}

#[test]
fn exit_codes_and_signals_are_passed_on_and_orphans_end() {
    let place = Place::new();
    let coded = place.finish(place.run(
        true,
        &[],
        &["sh", "-c", "(sleep 1000 &) ; cat; echo out; echo err >&2; exit 17"],
    ));
    assert_eq!((coded.code, coded.stdout.as_str()), (17, "out\n"), "{}", coded.stderr);
    assert!(coded.stderr.contains("\nerr\n"), "{}", coded.stderr);
    place.assert_clean();

    let killed = place.finish(place.run(true, &[], &["sh", "-c", "kill -9 $$"]));
    assert_eq!(killed.code, 137, "{}", killed.stderr);
    let missing = place.finish(place.run(true, &[], &["/no/such/program"]));
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    assert!(missing.stderr.contains("cannot run /no/such/program: No such file"), "{}", missing.stderr);

    let no_program = place.finish(place.run(true, &[], &["/etc/passwd"]));
    assert_eq!(no_program.code, 126, "{}", no_program.stderr);
    place.assert_clean();

    let trap = "trap 'echo asked; exit 5' TERM; echo running; while :; do sleep 0.05; done";
    for isolate in ["netns", "none"] {
        let run = place.run(true, &["--isolate", isolate], &["sh", "-c", trap]);
        let mut run = Process::spawn(run, "run", place.lab.dir.path());
        run.wait_for("running", LIMIT);
        run.signal(Signal::SIGTERM);
        let out = run.finish(LIMIT);
        assert_eq!((out.code, out.stdout.as_str()), (5, "running\nasked\n"), "{isolate}: {}", out.stderr);
        place.assert_clean();
    }
}

#[test]
fn nothing_outlives_a_killed_run() {
    let place = Place::new();
    for isolate in ["netns", "none"] {
        let deaf = "trap '' TERM HUP INT; (setsid sleep 1000 &) ; echo running; while :; do sleep 0.05; done";
        let run = place.run(true, &["--isolate", isolate], &["sh", "-c", deaf]);
        let mut run = Process::spawn(run, "run", place.lab.dir.path());
        run.wait_for("running", LIMIT);
        run.signal(Signal::SIGKILL);
        let out = run.finish(LIMIT);
        assert_eq!(out.code, 137);
        let needle = place.user.path().display().to_string();
        let deadline = Instant::now() + patience(Duration::from_secs(10));
        while !remains::processes(&needle).is_empty() {
            assert!(Instant::now() < deadline, "{isolate}: {:#?}", remains::processes(&needle));
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_command_does_not_outlive_its_network() {
    let place = Place::new();
    let run = place.run(true, &["--isolate", "netns"], &["sh", "-c", "echo running; exec sleep 1000"]);
    let mut run = Process::spawn(run, "run", place.lab.dir.path());
    run.wait_for("running", LIMIT);
    let sleeping = command_below(run.pid());
    let delete = format!("--net=/proc/{sleeping}/ns/net");
    let deleted = Command::new("nsenter").args([&delete, "ip", "link", "delete", "wg0"]).status().unwrap();
    assert!(deleted.success());
    let out = run.finish(LIMIT);
    assert_eq!(out.code, 125, "{}", out.stderr);
    assert!(out.stderr.contains("the command was killed"), "{}", out.stderr);
    assert!(kill(Pid::from_raw(sleeping), None).is_err());
    place.assert_clean();
}

/// The last in the line of first children.
fn command_below(pid: u32) -> i32 {
    let mut pid = i32::try_from(pid).expect("a process id");
    while let Some(child) = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .ok()
        .and_then(|children| children.split_whitespace().next()?.parse().ok())
    {
        pid = child;
    }
    pid
}

#[test]
fn without_a_tun_device_the_command_is_told_of_a_proxy_and_the_user_of_the_reason() {
    let place = Place::new();
    let refused = place.finish(place.run(false, &["--isolate", "netns"], &["true"]));
    assert_eq!(refused.code, 125, "{}", refused.stderr);
    assert!(refused.stderr.contains("cannot open a TUN device"), "{}", refused.stderr);
    assert!(place.path("home/token").exists() && !place.path("etc/sandbox-credentials.json").exists());

    let url = |port: u16| format!("http://{}:{port}/", place.tool);
    let script = format!(
        "echo $LATTICE_SANDBOX_NAME; env | grep -c -E 'LATTICE_(ADMIN|TOKEN)'; curl -sS -m 20 {}; curl -s -m 20 {}; echo $?",
        url(8080),
        url(9090)
    );
    let out = place.finish(place.run(false, &["--egress-allow", &place.allowed()], &["sh", "-c", &script]));
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(
        out.stderr.contains("class cooperative") && out.stderr.contains("cannot open a TUN device"),
        "{}",
        out.stderr
    );
    let wanted = format!(
        "agent\n0\nhello from the tool\nlattice: {}:9090: the policy does not permit this address (default-deny)\n0\n",
        place.tool
    );
    assert_eq!(out.stdout, wanted, "{}", out.stderr);
    assert!(place.records().iter().all(|record| record["class"] == "cooperative"));
    place.assert_clean();
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = Place::new();
    for (flags, text) in [
        (&["--isolate", "netns", "--forward", "80:127.0.0.1:81"][..], "give 81:127.0.0.1:81"),
        (&["--isolate", "netns", "--forward", "80:192.0.2.1:80"], "--isolate none"),
        (&["--isolate", "none", "--read-only"], "--isolate netns or gvisor only"),
        (&["--isolate", "none", "--readable", "/"], "--isolate netns or gvisor only"),
        (&["--writable", "/no/such/directory"], "name a directory"),
        (&["--wireguard", "kernel"], "--wireguard kernel"),
        (&["--forward", "nonsense"], "forward"),
    ] {
        let out = place.finish(place.run(true, flags, &["true"]));
        assert_eq!(out.code, 125, "{flags:?}: {}", out.stderr);
        assert!(out.stderr.contains(text), "{flags:?}: {}", out.stderr);
    }
    // Where there can be no view, nothing runs without it.
    for flags in [&["--read-only"][..], &["--writable", "/tmp"]] {
        let out = place.finish(place.run(false, flags, &["echo", "it runs"]));
        assert_eq!((out.code, out.stdout.as_str()), (125, ""), "{flags:?}: {}", out.stderr);
        assert!(out.stderr.contains("cannot open a TUN device"), "{flags:?}: {}", out.stderr);
    }
    let inside = place.lab.run(&place.host, &["sandbox", "inside", "--channel", "77", "--", "true"]);
    assert_eq!(inside.code, 64, "{}", inside.stderr);
    place.assert_clean();
}
