//! runsc makes a pod's sandbox while phase one goes on: whatever becomes of the one, nothing of the pod's runs before both are done, and
//! nothing stays.

use std::{thread, time::Duration};

use lattice_tests::{
    containerd::{Options, Pod},
    process::children,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{containerd_node::Node, world::wait_for};

/// The processes of the node's pods whose program has that name.
fn of(node: &Node, program: &str) -> Vec<u32> {
    let first = |line: &str| line.split(" -").next().is_some_and(|first| first.contains(program));
    let tasks = node.daemon.inside.processes();
    tasks.into_iter().filter(|task| first(&task.line)).map(|task| task.pid).collect()
}

/// Runs a pod whose identity waits for nats-server, has `meanwhile` done when its sandbox is there, and gives what containerd says.
fn made_too_early(node: &Node, nats: Pid, meanwhile: impl FnOnce()) -> Result<(), String> {
    kill(nats, Signal::SIGSTOP).unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            let pod = Pod::try_run(&node.daemon, 0).map_err(|status| status.to_string())?;
            let agent = pod.start("agent", &Options::default());
            assert_eq!(agent.shell("echo runs").0, "runs\n");
            pod.remove();
            Ok(())
        });
        wait_for("the sandbox", || !of(node, "runsc-sandbox").is_empty());
        // runsc may still be at it.
        thread::sleep(Duration::from_millis(500));
        assert!(!run.is_finished(), "it is done before its phase one");
        meanwhile();
        run.join().unwrap()
    })
}

#[test]
fn a_sandbox_waits_for_its_phase_one_and_goes_with_it() {
    let node = Node::new(true);
    let nats = Pid::from_raw(children(node.lab.latticed().pid())[0]);
    // The first pod makes what is made once.
    let before = node.daemon.remains();
    let go_on = || kill(nats, Signal::SIGCONT).unwrap();
    made_too_early(&node, nats, go_on).unwrap();
    node.daemon.assert_nothing_since(&before);

    let killed = || {
        of(&node, "containerd-shim-").into_iter().for_each(|pid| node.daemon.inside.kill("KILL", pid));
        wait_for("the sandbox to end", || of(&node, "runsc-sandbox").is_empty());
    };
    made_too_early(&node, nats, killed).unwrap_err();
    go_on();
    node.daemon.assert_nothing_since(&before);

    let refused = || kill(nats, Signal::SIGKILL).unwrap();
    let why = made_too_early(&node, nats, refused).unwrap_err();
    assert!(why.contains("identity: "), "{why}");
    node.daemon.assert_nothing_since(&before);
}
