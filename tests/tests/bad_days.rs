//! Signals, kills and outages at every phase: no packet leaves unpoliced, nothing stays.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lattice_tests::{Host, Lab, Process, agent, lab::wait_until, process::children, remains};
use lattice_wire::subject::{PeerVerb, inbox, peer};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const LIMIT: Duration = Duration::from_secs(60);
const STEPS: [&str; 8] = ["state", "netns", "identity", "device", "policy", "links", "resolver", "peers"];
/// Phase one was interrupted; the agent was ended by SIGTERM; by SIGINT.
const INTERRUPTED: [i32; 3] = [75, 143, 130];

fn sleeper(lab: &Lab, host: &Host, name: &str) -> Process {
    let mut command = agent::start(lab, host, name, &[]);
    command.args(["--agent-binary", "/bin/sleep", "--", "60"]);
    Process::spawn(command, name, lab.dir.path())
}

#[test]
fn a_signal_at_any_phase_undoes_everything() {
    let mut lab = Lab::start();
    let host = lab.host();
    for (step, signal) in
        STEPS.iter().chain(["ready", "agent"].iter()).zip([Signal::SIGTERM, Signal::SIGINT].iter().cycle())
    {
        let mut process = sleeper(&lab, &host, "a");
        process.wait_for(&format!("] {step} "), LIMIT);
        process.signal(*signal);
        let out = process.finish(LIMIT);
        assert!(INTERRUPTED.contains(&out.code), "{signal} after {step}: {} {}", out.code, out.stderr);
        remains::assert_none(&host);
    }
}

#[test]
fn a_kill_at_any_phase_leaves_no_process_and_the_next_start_removes_the_rest() {
    let mut lab = Lab::start();
    let host = lab.host();
    for step in STEPS.iter().chain(["ready", "agent"].iter()) {
        let mut process = sleeper(&lab, &host, "a");
        process.wait_for(&format!("] {step} "), LIMIT);
        process.signal(Signal::SIGKILL);
        let out = process.finish(LIMIT);
        assert_eq!(out.code, 137, "after {step}: {}", out.stderr);
        let needle = host.dir.join("run").display().to_string();
        lattice_tests::lab::wait_until(LIMIT, "its processes to be gone", || {
            remains::processes(&needle).is_empty()
        });
    }
    // The last one had an agent: its pins are there until somebody removes them.
    assert!(!remains::of(&host).is_empty(), "a killed run leaves its pinned policy");
    let status = lab.run(&host, &["status"]);
    assert!(status.stdout.contains("dead: lattice doctor --fix"), "{}", status.stdout);
    let fixed = lab.run(&host, &["doctor", "--fix"]);
    assert!(fixed.stdout.contains("removed: a"), "{}{}", fixed.stdout, fixed.stderr);
    remains::assert_none(&host);

    let mut process = sleeper(&lab, &host, "a");
    process.wait_for("] agent ", LIMIT);
    process.signal(Signal::SIGKILL);
    process.finish(LIMIT);
    let mut next = sleeper(&lab, &host, "a");
    next.wait_for("removed what a killed run had left", LIMIT);
    next.wait_for("] agent ", LIMIT);
    next.signal(Signal::SIGTERM);
    next.finish(LIMIT);
    remains::assert_none(&host);
}

#[test]
fn a_killed_runsc_ends_the_sandbox() {
    let mut lab = Lab::start();
    let host = lab.host();
    let mut process = sleeper(&lab, &host, "a");
    process.wait_for("] agent ", LIMIT);
    let children = children(process.pid());
    assert!(!children.is_empty(), "lattice has a runsc");
    for child in children {
        kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    }
    let out = process.finish(LIMIT);
    assert_ne!(out.code, 0, "{}", out.stderr);
    remains::assert_none(&host);
}

#[test]
fn without_its_control_plane_a_sandbox_keeps_its_tunnel_and_its_policy() {
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (_node, tool_ip) = lab.up(&tool, "tool");
    let _service = lab.serve_http(&tool, 8080);
    let _closed = lab.serve_http(&tool, 9090);
    let probes = [
        format!("http:{tool_ip}:8080"),
        "sleep:4".into(),
        format!("http:{tool_ip}:8080"),
        format!("tcp:{tool_ip}:9090"),
    ];
    let mut command = agent::start(&lab, &runner, "a", &[&format!("{tool_ip}/32:8080")]);
    command.args(["--agent-binary", "/usr/local/bin/demo-agent", "--"]).args(&probes);
    let mut process = Process::spawn(command, "a", lab.dir.path());
    process.wait_for("http:", LIMIT);
    // SIGKILL: nats-server goes with latticed.
    drop(lab.take_latticed());
    let out = process.finish(LIMIT);
    let attempts = agent::attempts(&out.stdout);
    let results: Vec<&str> = attempts.iter().map(|a| a.result.as_str()).collect();
    assert_eq!(results[..3], ["ok"; 3], "{}", out.stderr);
    assert!(["EPERM", "ECONNREFUSED"].contains(&results[3]), "{results:?}{}", out.stderr);
    remains::assert_none(&runner);

    // It comes back, and the peer resumes.
    lab.start_latticed();
    let mut again = agent::start(&lab, &runner, "a", &[&format!("{tool_ip}/32:8080")]);
    again.args(["--agent-binary", "/usr/local/bin/demo-agent", "--", &probes[0]]);
    let out = Process::spawn(again, "a", lab.dir.path()).finish(LIMIT);
    assert_eq!(agent::attempts(&out.stdout)[0].result, "ok", "{}", out.stderr);
}

#[test]
fn two_sandboxes_on_one_host_keep_apart() {
    let mut lab = Lab::start();
    let mut hosts = [lab.host(), lab.host()];
    // One host, two configurations: the second moves into the first one's namespace.
    let shared = lattice_overlay::Netns::open(&hosts[0].netns.path()).unwrap();
    hosts[1].netns = shared;
    let mut running: Vec<Process> =
        hosts.iter().zip(["a", "b"]).map(|(host, name)| sleeper(&lab, host, name)).collect();
    for process in &mut running {
        process.wait_for("] agent ", LIMIT);
    }
    for process in running {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.finish(LIMIT).code, 143);
    }
    for host in &hosts {
        remains::assert_none(host);
    }
}

#[test]
fn a_control_plane_that_goes_after_identity_does_not_stop_the_start() {
    let mut lab = Lab::start();
    let host = lab.host();
    for step in STEPS.iter().skip_while(|step| **step != "identity") {
        let mut process = sleeper(&lab, &host, "a");
        process.wait_for(&format!("] {step} "), LIMIT);
        // SIGKILL: nats-server goes with latticed.
        drop(lab.take_latticed());
        process.wait_for("] agent ", LIMIT);
        process.signal(Signal::SIGTERM);
        assert_eq!(process.finish(LIMIT).code, 143, "after {step}");
        remains::assert_none(&host);
        lab.start_latticed();
    }
}

#[test]
fn a_nats_server_that_is_killed_comes_back_under_a_running_sandbox() {
    let mut lab = Lab::start();
    let host = lab.host();
    let mut process = sleeper(&lab, &host, "a");
    process.wait_for("] agent ", LIMIT);
    for child in children(lab.latticed().pid()) {
        kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    }
    // A second host is admitted: so the server is back, and the first start may be told to end.
    let other = lab.host();
    let start = || {
        let mut up = lab.lattice(&other);
        up.args(["up", "--name", "b"]);
        if !other.dir.join("etc/node-credentials.json").exists() {
            up.arg("--token-file").arg(lab.token_file(&other));
        }
        Process::spawn(up, "b", lab.dir.path())
    };
    let mut up = start();
    lattice_tests::lab::wait_until(LIMIT, "nats-server to be back", || {
        if up.has_ended() {
            up = start();
        }
        up.output().1.contains("overlay IP=")
    });
    process.signal(Signal::SIGTERM);
    assert_eq!(process.finish(LIMIT).code, 143);
    remains::assert_none(&host);
}

#[test]
fn a_control_plane_that_hangs_is_named_and_a_signal_does_not_wait_for_it() {
    let mut lab = Lab::start();
    let host = lab.host();
    let pid = Pid::from_raw(lab.latticed().pid().cast_signed());
    let children: Vec<Pid> = children(lab.latticed().pid()).into_iter().map(Pid::from_raw).collect();

    let waiting = sleeper(&lab, &host, "a");
    drop(waiting);
    let start = agent::start(&lab, &host, "a", &[]);
    let again = |start: &std::process::Command| {
        let mut command = std::process::Command::new(start.get_program());
        command.args(start.get_args()).args(["--agent-binary", "/bin/true"]);
        for (name, value) in start.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        Process::spawn(command, "a", lab.dir.path())
    };
    for stopped in [children[0], pid] {
        kill(stopped, Signal::SIGSTOP).unwrap();
        let out = again(&start).finish(LIMIT);
        assert_eq!(out.code, 69, "{}", out.stderr);
        assert_eq!(out.stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{}", out.stderr);
        remains::assert_none(&host);

        let mut process = again(&start);
        process.wait_for("] state ", LIMIT);
        process.signal(Signal::SIGINT);
        assert_eq!(process.finish(LIMIT).code, 75);
        remains::assert_none(&host);
        kill(stopped, Signal::SIGCONT).unwrap();
    }
    assert!(!host.dir.join("etc/sandbox-credentials.json").exists());
    let out = again(&start).finish(LIMIT);
    assert_eq!(out.code, 0, "the token was not spent: {}", out.stderr);
}

/// Asks latticed for more than one peer may, in that peer's name, until `enough`.
fn ask_too_often(lab: &Lab, host: &Host, enough: &AtomicBool) {
    let stored = fs::read(host.dir.join("etc/node-credentials.json")).expect("the credentials");
    let stored: lattice_wire::Credentials = serde_json::from_slice(&stored).expect("the credentials");
    let key = nkeys::KeyPair::from_seed(&stored.nats_seed).expect("a seed");
    let (jwt, key) = (stored.nats_jwt.clone(), Arc::new(key));
    let mut options = async_nats::ConnectOptions::with_auth_callback(move |nonce| {
        let (jwt, key) = (jwt.clone(), key.clone());
        async move {
            let mut auth = async_nats::Auth::new();
            auth.signature = Some(key.sign(&nonce).map_err(async_nats::AuthError::new)?);
            auth.jwt = Some(jwt);
            Ok(auth)
        }
    })
    .custom_inbox_prefix(inbox(&stored.peer));
    if let Some(trust) = &stored.nats_tls {
        options = options.require_tls(true).tls_client_config(trust.client_config().expect("a certificate"));
    }
    let ask = async {
        let client = options.connect(&stored.nats_url).await.expect("NATS");
        let subject = peer(&stored.peer, PeerVerb::Netmap);
        let begun = Instant::now();
        while !enough.load(Ordering::Relaxed) && begun.elapsed() < 2 * LIMIT {
            client.request(subject.clone(), "".into()).await.expect("an answer");
        }
    };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    lab.hub().run(|| runtime().block_on(ask)).expect("the hub's namespace");
}

/// A start that latticed has told to wait. One may come at the very moment at which it may ask again.
fn told_to_wait(lab: &Lab, host: &Host) -> Process {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let mut lattice = lab.lattice(host);
        lattice.args(["up", "--name", "a"]);
        let process = Process::spawn(lattice, "a", lab.dir.path());
        let says = |what: &str| process.output().1.contains(what);
        wait_until(LIMIT, "the start", || says("asking again") || says("overlay IP=") || says("error:"));
        if says("asking again") {
            return process;
        }
        process.signal(Signal::SIGTERM);
        process.finish(LIMIT);
    }
    panic!("never told to wait");
}

#[test]
fn a_peer_that_asks_too_often_waits_at_its_start_and_a_signal_ends_the_waiting() {
    let mut lab = Lab::start();
    let host = lab.host();
    let (process, _) = lab.up(&host, "a");
    process.signal(Signal::SIGTERM);
    process.finish(LIMIT);

    let enough = AtomicBool::new(false);
    let mut patient = thread::scope(|scope| {
        let asking = scope.spawn(|| ask_too_often(&lab, &host, &enough));
        let ended = told_to_wait(&lab, &host);
        ended.signal(Signal::SIGTERM);
        let out = ended.finish(LIMIT);
        assert_eq!(out.code, 75, "{}", out.stderr);
        let patient = told_to_wait(&lab, &host);
        enough.store(true, Ordering::Relaxed);
        asking.join().expect("the other one");
        patient
    });
    patient.wait_for("overlay IP=", LIMIT);
}

#[test]
fn of_two_starts_at_once_one_runs_and_the_other_says_why_not() {
    let mut lab = Lab::start();
    let host = lab.host();
    let commands = [agent::start(&lab, &host, "a", &[]), agent::start(&lab, &host, "a", &[])];
    let mut both: Vec<Process> = commands
        .into_iter()
        .map(|mut command| {
            command.args(["--agent-binary", "/bin/sleep", "--", "60"]);
            Process::spawn(command, "a", lab.dir.path())
        })
        .collect();
    let says = |process: &Process, text: &str| process.output().1.contains(text);
    lattice_tests::lab::wait_until(LIMIT, "one to run and one to be refused", || {
        both.iter().any(|p| says(p, "] agent ")) && both.iter().any(|p| says(p, "already runs on this host"))
    });
    both.sort_by_key(|p| says(p, "] agent "));
    let (runs, refused) = (both.pop().unwrap(), both.pop().unwrap());
    assert_eq!(refused.finish(LIMIT).code, 73);
    runs.signal(Signal::SIGTERM);
    assert_eq!(runs.finish(LIMIT).code, 143);
    remains::assert_none(&host);
}

#[test]
fn doctors_at_once_and_during_a_start_remove_what_is_dead_and_nothing_else() {
    let mut lab = Lab::start();
    let host = lab.host();
    let mut killed = sleeper(&lab, &host, "a");
    killed.wait_for("] agent ", LIMIT);
    killed.signal(Signal::SIGKILL);
    killed.finish(LIMIT);
    let doctor = || {
        let mut doctor = lab.lattice(&host);
        doctor.args(["doctor", "--fix", "-o", "json"]);
        Process::spawn(doctor, "doctor", lab.dir.path())
    };
    for doctor in [doctor(), doctor(), doctor()] {
        let out = doctor.finish(LIMIT);
        let report: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
        let check = report["checks"].as_array().unwrap().iter().find(|c| c["name"] == "leftovers").unwrap();
        assert_eq!(check["ok"], true, "{check}");
    }
    remains::assert_none(&host);

    let mut start = sleeper(&lab, &host, "a");
    while !start.output().1.contains("] agent ") {
        doctor().finish(LIMIT);
        let status = lab.run(&host, &["status"]);
        assert!(!status.stdout.contains("dead"), "{}", status.stdout);
    }
    start.wait_for("] agent ", LIMIT);
    start.signal(Signal::SIGTERM);
    assert_eq!(start.finish(LIMIT).code, 143);
    remains::assert_none(&host);
}
