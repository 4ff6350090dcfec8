//! A sandbox that is made while phase one goes on.

use std::{
    fs,
    io::{PipeReader, Read as _},
    os::fd::AsFd as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use lattice_bootstrap::Ready;
use lattice_overlay::netns::Netns;
use lattice_runsc::{AgentSpec, AgentStdio, Created, Runsc, RunscError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::support::{Place, each_runsc, eventually};

/// Begins to make `spec`, and gives its output.
fn create(place: &Place, runsc: &Runsc, spec: &AgentSpec) -> (Created, PipeReader) {
    let (out, to_out) = std::io::pipe().unwrap();
    let stdio = AgentStdio::new(Stdio::null(), to_out, Stdio::null());
    (runsc.create(&place.netns().path(), spec, &place.state(), stdio).unwrap(), out)
}

/// Waits until runsc has noted that the sandbox is made.
pub(crate) fn await_sandbox(place: &Place) {
    eventually("the sandbox", || {
        let roots = place.left().into_iter().map(|dir| dir.join("root"));
        let mut files = roots.flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
        files.any(|file| file.path().extension().is_some_and(|extension| extension == "state"))
    });
}

/// Processes whose arguments name the state directory.
fn processes(place: &Place) -> Vec<String> {
    let needle = place.state().display().to_string();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&needle)).collect()
}

#[test]
fn nothing_runs_before_the_start_and_links_that_came_meanwhile_are_seen() {
    each_runsc(|runsc| {
        let place = Place::new();
        let (created, mut out) = create(&place, runsc, &place.spec("echo runs; ip addr; ip route"));
        await_sandbox(&place);
        // Several times what it takes to run.
        thread::sleep(Duration::from_secs(1));
        let mut waiting = [PollFd::new(out.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut waiting, PollTimeout::ZERO), Ok(0), "it ran before its start");

        for words in [
            "link add late0 type veth peer name late1",
            "addr add 10.9.8.7/24 dev late0",
            "link set late1 up",
            "link set late0 up",
            "route add 10.6.0.0/16 dev late0",
        ] {
            let ip = || Command::new("ip").args(words.split(' ')).status().unwrap();
            assert!(place.netns().run(ip).unwrap().success(), "{words}");
        }
        let mut agent = created.start(&place.ready()).unwrap();
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        assert_eq!(agent.wait().unwrap(), 0);
        assert!(text.starts_with("runs\n"), "{text}");
        for seen in ["late0", "10.9.8.7", "10.6.0.0/16"] {
            assert!(text.contains(seen), "{seen}: {text}");
        }
        drop(agent);
        assert!(place.left().is_empty());
    });
}

#[test]
fn a_sandbox_that_is_never_started_leaves_nothing() {
    each_runsc(|runsc| {
        let place = Place::new();
        for stands in [false, true] {
            let (created, _out) = create(&place, runsc, &place.spec("sleep 600"));
            if stands {
                await_sandbox(&place);
                assert!(processes(&place).len() >= 3, "runsc, sentry, gofer: {:#?}", processes(&place));
            }
            drop(created);
            assert_eq!(processes(&place), Vec::<String>::new(), "it stood: {stands}");
            assert!(place.left().is_empty());
        }
    });
}

#[test]
fn the_policy_of_another_namespace_starts_nothing() {
    each_runsc(|runsc| {
        let place = Place::new();
        let other = Netns::create().unwrap();
        let (created, mut out) = create(&place, runsc, &place.spec("echo runs"));
        await_sandbox(&place);
        let refused = created.start(&Ready::for_tests(other.path())).unwrap_err();
        assert!(matches!(refused, RunscError::Invalid(_)), "{refused}");
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
        assert!(processes(&place).is_empty() && place.left().is_empty());
    });
}
