//! Many pods, and nothing of them afterwards.

use std::{env, thread};

use lattice_tests::containerd::{Daemon, Options, Pod};

use crate::LIMIT;

/// How many one after the other; a few at once.
fn number() -> usize {
    env::var("LATTICE_CRI_PODS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

fn life(daemon: &Daemon, number: usize) {
    let code = i32::try_from(number % 200).unwrap_or(0);
    let pod = Pod::run(daemon);
    let container = pod.start("a", &Options::shell(&format!("echo hello; exit {code}")));
    let other = pod.start("b", &Options::default());
    assert_eq!(other.shell("echo exec").0, "exec\n");
    assert_eq!(container.wait(LIMIT).0, code);
    pod.remove();
}

pub(crate) fn one_pod_after_the_other(daemon: &mut Daemon) {
    let before = daemon.remains();
    for number in 0..number() {
        life(daemon, number);
    }
    daemon.assert_nothing_since(&before);
}

pub(crate) fn pods_in_parallel(daemon: &mut Daemon) {
    let before = daemon.remains();
    let at_once = (number() / 10).clamp(8, 20);
    let daemon: &Daemon = daemon;
    thread::scope(|scope| {
        for number in 0..at_once {
            scope.spawn(move || life(daemon, number));
        }
    });
    daemon.assert_nothing_since(&before);
}
