//! How a container ended.

use lattice_tests::containerd::{Daemon, Options, Pod};

use crate::LIMIT;

pub(crate) fn exit_codes_are_right(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let cases = [
        ("true", 0, "Completed"),
        ("exit 7", 7, "Error"),
        ("sleep 0.3; exit 255", 255, "Error"),
        ("kill -TERM $$; sleep 60", 143, "Error"),
        ("kill -KILL $$; sleep 60", 137, "Error"),
        ("kill -SEGV $$; sleep 60", 139, "Error"),
    ];
    for (number, (script, code, reason)) in cases.into_iter().enumerate() {
        // The first process of a process id namespace ignores signals that it sends to itself: its child does not.
        let options = Options::shell(&format!("sh -c '{script}'; exit $?"));
        let container = pod.start(&format!("c{number}"), &options);
        assert_eq!(container.wait(LIMIT), (code, reason.to_owned()), "{script}");
    }
    pod.remove();
}

/// So short that it has ended before the shim could begin to wait for it.
pub(crate) fn short_lived_containers_keep_their_code(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let codes: Vec<i32> = (0..20)
        .map(|number| {
            let container = pod.start(&format!("c{number}"), &Options::shell("exit 7"));
            let code = container.wait(LIMIT).0;
            container.remove().expect("RemoveContainer");
            code
        })
        .collect();
    assert_eq!(codes, [7; 20]);
    pod.remove();
}

pub(crate) fn a_stopped_container_tells_the_signal(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let patient =
        pod.start("patient", &Options::shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"));
    lattice_tests::lab::wait_until(LIMIT, "the trap", || patient.logged("stdout") == "ready\n");
    patient.stop(30).expect("StopContainer");
    assert_eq!(patient.wait(LIMIT).0, 3, "it had time to end by itself");

    let deaf = pod.start("deaf", &Options::shell("trap '' TERM; echo ready; while :; do sleep 0.05; done"));
    lattice_tests::lab::wait_until(LIMIT, "the trap", || deaf.logged("stdout") == "ready\n");
    deaf.stop(1).expect("StopContainer");
    assert_eq!(deaf.wait(LIMIT).0, 137, "it was killed");
    assert_eq!(deaf.state(), "exited");
    pod.remove();
}
