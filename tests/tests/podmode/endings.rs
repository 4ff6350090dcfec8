//! However a sandbox ends, it leaves nothing, and the next one is who it was.

use std::{fs, time::Duration};

use lattice_tests::{Process, User, lab::wait_until, remains, tools, unprivileged::said};
use nix::sys::signal::Signal;

use crate::{
    client::get,
    services::HELLO,
    world::{LIMIT, PAGE, World},
};

/// What there is of a user's: processes, and entries of the state directory.
fn left(user: &User) -> Vec<String> {
    let mut found = remains::processes(&user.dir.display().to_string());
    for folder in ["sandboxes", "nodes"] {
        let path = user.dir.join("run/lattice").join(folder);
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    found
}

#[test]
fn it_resumes_as_who_it_was_after_an_end_and_after_a_kill() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let first = said(&pod.process);
    assert!(first.contains("enrolled") && user.enrolled(), "{first}");
    let (address, proxy) = (pod.address, pod.proxy().to_string());
    let twice = {
        let mut again = user.command(&world.near.netns, &tools::built("lattice"));
        again.args(user.start(&world.lab, &world.near, "agent", &[]));
        Process::spawn(again, "agent", world.lab.dir.path()).finish(LIMIT)
    };
    assert_eq!(twice.code, 73, "{}", twice.stderr);
    assert!(twice.stderr.contains("already runs"), "{}", twice.stderr);
    assert!(user.dir.join("ready.json").exists(), "the running one is still ready");
    let links = world.lab.on(&world.near, "ip", &["-o", "link"]).stdout;
    assert_eq!(links.lines().count(), 2, "lo and eth0, and no link of ours: {links}");
    pod.process.signal(Signal::SIGKILL);
    assert_eq!(pod.process.finish(LIMIT).code, 137);
    wait_until(Duration::from_secs(5), "its processes to be gone", || {
        remains::processes(&user.dir.display().to_string()).is_empty()
    });
    // The same flags, the proxy's port included.
    let pod = user.pod(
        &world.lab,
        &world.near,
        "agent",
        &["--proxy-addr", &proxy, "--egress-allow", &format!("{}/32", world.far_ip)],
    );
    assert!(said(&pod.process).contains("resumed"), "{}", said(&pod.process));
    assert_eq!(pod.address, address);
    assert_eq!(get(world.client(&pod).reach("far", PAGE), "/"), HELLO);
    pod.end();
    assert_eq!(left(&user), Vec::<String>::new());
}

#[test]
fn a_signal_at_any_phase_undoes_everything() {
    let world = World::new();
    let user = world.user("agent");
    let steps = ["state", "identity", "device", "policy", "resolver", "proxy", "peers", "ready"];
    for (step, signal) in steps.iter().zip([Signal::SIGTERM, Signal::SIGINT].into_iter().cycle()) {
        let mut start = user.command(&world.near.netns, &tools::built("lattice"));
        start.args(user.start(&world.lab, &world.near, "agent", &["--proxy-addr", "127.0.0.1:0"]));
        let mut process = Process::spawn(start, "agent", world.lab.dir.path());
        process.wait_for(&format!("] {step} "), LIMIT);
        process.signal(signal);
        let out = process.finish(LIMIT);
        assert!([0, 75].contains(&out.code), "{signal} after {step}: {} {}", out.code, out.stderr);
        assert_eq!(left(&user), Vec::<String>::new(), "{signal} after {step}");
        assert!(!user.dir.join("ready.json").exists());
    }
}
