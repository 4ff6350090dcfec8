//! What a container uses, and may use.

use std::fs;

use lattice_tests::{
    containerd::{Daemon, Events, Options, Pod},
    lab::wait_until,
};

use crate::LIMIT;

pub(crate) fn stats_are_told(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let container = pod.start("busy", &Options::shell("while :; do :; done"));
    let (first, memory) = container.stats().expect("ContainerStats");
    assert!(memory > 0, "{memory} bytes");
    wait_until(LIMIT, "processor time to grow by 200 ms", || {
        container.stats().is_ok_and(|(now, _)| now > first + 200_000_000)
    });
    let metrics = daemon.run_ctr(&["task", "metrics", &container.id]);
    assert!(metrics.code == 0 && metrics.stdout.contains("memory"), "{metrics:?}");
    let processes = daemon.run_ctr(&["task", "ps", &container.id]);
    assert!(processes.code == 0 && processes.stdout.lines().count() >= 2, "{processes:?}");
    pod.remove();
}

/// The limit is both the pod's and the container's: under gVisor one sandbox has the memory of all, and the pod's is the one that holds.
pub(crate) fn memory_beyond_the_limit_is_an_oom(daemon: &mut Daemon) {
    let mut events = Events::subscribe(daemon);
    let pod = Pod::with_memory(daemon, 64 << 20);
    // Not before its start has been told, then at once.
    let script = "while [ ! -e /flags/go ]; do sleep 0.05; done; exec dd if=/dev/zero of=/dev/null bs=300M";
    let flags = daemon.directory("flags");
    let mounts = vec![(flags.clone(), "/flags".into(), true)];
    let container = pod.start("eater", &Options { memory: 64 << 20, mounts, ..Options::shell(script) });
    fs::write(flags.join("go"), "").expect("the flag");
    let (code, reason) = container.wait(LIMIT);
    assert_eq!((code, reason.as_str()), (137, "OOMKilled"));
    events.wait(LIMIT, "exit", |event| event.topic == "exit" && event.container == container.id);
    let topics = events.topics(&container.id);
    let place = |topic: &str| topics.iter().position(|seen| seen == topic);
    assert!(place("oom").is_some() && place("oom") < place("exit"), "{topics:?}");
    pod.remove();
}
