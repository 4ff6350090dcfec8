//! A machine that is as narrow as a hardened container, or has no room left.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use lattice_tests::{Pod, Process, User, tools};
use nix::sys::signal::Signal;

use crate::{
    client::get,
    services::HELLO,
    world::{LIMIT, PAGE, World},
};

/// Everything is read-only but one directory.
fn read_only(but: &Path) -> String {
    let but = but.display();
    format!("mount --bind '{but}' '{but}'; mount -o remount,bind,ro /; ! touch /tmp/probe 2>/dev/null")
}

#[test]
fn the_sidecar_of_a_hardened_pod_needs_nothing_but_its_own_directories() {
    let world = World::new();
    let user = User::new(&world.lab, &world.near, 1000, "sidecar");
    let script = read_only(&user.dir);
    let mut start = user.command_after(&world.near.netns, &script, &tools::built("lattice"));
    let rule = format!("{}/32:{PAGE}", world.far_ip);
    let flags = ["--proxy-addr", "127.0.0.1:1080", "--egress-allow", &rule];
    start.args(user.start(&world.lab, &world.near, "sidecar", &flags));
    let pod = Pod::ready(Process::spawn(start, "sidecar", world.lab.dir.path()), &user, "sidecar");
    assert_eq!(get(world.client(&pod).reach("far.lattice", PAGE), "/"), HELLO);

    let proc = format!("/proc/{}", pod.process.pid());
    for task in fs::read_dir(format!("{proc}/task")).unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(
            (field("NoNewPrivs"), field("Uid"), field("Groups")),
            ("1".into(), ["1000"; 4].join(" "), String::new())
        );
    }
    for entry in fs::read_dir(format!("{proc}/fd")).unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        // The first three are what the test gave it.
        let given = ["0", "1", "2"].contains(&entry.file_name().to_string_lossy().as_ref());
        let Ok(file) = fs::metadata(entry.path()) else { continue };
        if !given && target.is_absolute() && file.is_file() {
            assert_eq!(file.uid(), 1000, "{} is another's", target.display());
        }
    }
    assert_eq!(
        fs::metadata(user.dir.join("state/lattice/sandbox-credentials.json")).unwrap().mode() & 0o777,
        0o600
    );
    // Another program of the same user reads neither its memory nor its descriptors.
    for file in ["mem", "environ", "fd/0"] {
        let out = world.agent(&user, "head", &["-c", "1", &format!("{proc}/{file}")]);
        assert!(out.code != 0 && out.stderr.contains("ermission denied"), "{file}: {}", out.stderr);
    }
    pod.end();
}

#[test]
fn records_that_find_no_room_are_a_counted_gap_and_the_policy_holds() {
    let world = World::new();
    let user = world.user("agent");
    let disk = user.dir.join("disk");
    fs::create_dir(&disk).unwrap();
    let script =
        format!("mount -t tmpfs -o mode=700,uid={0},gid={0},size=16k none '{1}'", user.id, disk.display());
    let mut start = user.command_after(&world.near.netns, &script, &tools::built("lattice"));
    let rule = format!("{}/32:{PAGE}", world.far_ip);
    start.args(user.start(
        &world.lab,
        &world.near,
        "agent",
        &["--proxy-addr", "127.0.0.1:0", "--egress-allow", &rule],
    ));
    // The file is said once.
    let args: Vec<_> = start.get_args().map(ToOwned::to_owned).collect();
    let at = args.iter().position(|arg| arg == "--audit-file").unwrap() + 1;
    let mut again = std::process::Command::new(start.get_program());
    let audit = disk.join("audit.jsonl");
    again.args(&args[..at]).arg(&audit).args(&args[at + 1..]).env_clear().stdin(std::process::Stdio::null());
    again.envs(start.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut pod = Pod::ready(Process::spawn(again, "agent", world.lab.dir.path()), &user, "agent");
    let client = world.client(&pod);
    for port in 1..=120 {
        assert_eq!(client.reply(world.far_ip, port), 2, "{port}");
    }
    pod.process.wait_for("cannot write flow records; they are counted as a gap", LIMIT);
    assert_eq!(get(client.reach(world.far_ip, PAGE), "/"), HELLO, "what is allowed goes on");
    assert_eq!(client.reply(world.far_ip, 9090), 2, "and what is not does not");
    pod.process.signal(Signal::SIGTERM);
    let out = pod.process.finish(LIMIT);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.stderr.contains("flow records could not be written"), "{}", out.stderr);
}
