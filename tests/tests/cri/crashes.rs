//! SIGKILL of each process of a pod.

use std::time::Duration;

use lattice_tests::{
    containerd::{Container, Daemon, Options, Pod},
    lab::wait_until,
};

use crate::LIMIT;

/// Kills what `chosen` picks of the pod's processes; the container is told ended, the pod can be removed, and nothing is left of it.
fn crash(daemon: &mut Daemon, chosen: impl Fn(&Daemon, &Pod, &Container) -> Vec<u32>) {
    let before = daemon.remains();
    let daemon: &Daemon = daemon;
    let pod = Pod::run(daemon);
    let container = pod.start("victim", &Options::default());
    assert_eq!(container.shell("echo alive").0, "alive\n");
    let victims = chosen(daemon, &pod, &container);
    assert!(!victims.is_empty(), "nothing to kill in {:#?}", daemon.inside.processes());
    for victim in victims {
        daemon.inside.kill("KILL", victim);
    }
    wait_until(LIMIT, "the container to be told ended", || container.state() == "exited");
    assert_ne!(container.status().exit_code, 0, "it was killed");
    // As a kubelet does, until it works.
    wait_until(Duration::from_secs(30), "the pod to be removed", || pod.try_remove().is_ok());
    daemon.assert_nothing_since(&before);
    let next = Pod::run(daemon);
    assert_eq!(next.start("next", &Options::default()).shell("echo next").0, "next\n");
    next.remove();
    daemon.assert_nothing_since(&before);
}

pub(crate) fn the_shim_is_killed(daemon: &mut Daemon) {
    crash(daemon, |daemon, _, _| named(daemon, "containerd-shim-"));
}

/// Its first process; under gVisor the sentry, and with it the whole pod.
pub(crate) fn the_container_is_killed(daemon: &mut Daemon) {
    crash(daemon, |daemon, _, _| match daemon.runtime.gvisor() {
        true => named(daemon, "runsc-sandbox"),
        false => named(daemon, "/bin/sleep inf"),
    });
}

pub(crate) fn the_gofer_is_killed(daemon: &mut Daemon) {
    if daemon.runtime.gvisor() {
        crash(daemon, |daemon, _, _| named(daemon, "runsc-gofer"));
    }
}

/// Processes whose command line has `word` in its first word.
fn named(daemon: &Daemon, word: &str) -> Vec<u32> {
    let tasks = daemon.inside.processes().into_iter();
    let first = |line: &str| line.split(" -").next().is_some_and(|first| first.contains(word));
    tasks.filter(|task| first(&task.line)).map(|task| task.pid).collect()
}
