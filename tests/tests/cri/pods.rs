//! Pods and their containers.

use lattice_tests::containerd::{Daemon, Options, Pod};

use crate::LIMIT;

pub(crate) fn three_containers_in_one_pod(daemon: &mut Daemon) {
    let before = daemon.remains();
    let pod = Pod::run(daemon);
    let containers = ["a", "b", "c"].map(|name| {
        pod.start(
            name,
            &Options::shell(&format!("echo {name} > /tmp/name; echo I am {name}; exec sleep inf")),
        )
    });
    for (container, name) in containers.iter().zip(["a", "b", "c"]) {
        lattice_tests::lab::wait_until(LIMIT, "its output", || !container.logged("stdout").is_empty());
        assert_eq!(container.logged("stdout"), format!("I am {name}\n"));
        assert_eq!(container.shell("cat /tmp/name").0, format!("{name}\n"), "its own root file system");
    }
    // One ends, and the others do not notice.
    containers[0].stop(0).expect("StopContainer");
    assert_eq!(containers[0].wait(LIMIT).0, 137);
    containers[0].remove().expect("RemoveContainer");
    assert_eq!(containers[1].shell("echo alive").0, "alive\n");
    let late = pod.start("d", &Options::shell("exit 4"));
    assert_eq!(late.wait(LIMIT).0, 4);
    assert_eq!(pod.status().expect("PodSandboxStatus").state, 0, "ready");
    pod.remove();
    daemon.assert_nothing_since(&before);
}

pub(crate) fn one_shim_per_pod(daemon: &mut Daemon) {
    let pods = [Pod::run(daemon), Pod::run(daemon)];
    for pod in &pods {
        for name in ["a", "b"] {
            pod.start(name, &Options::default());
        }
    }
    let shims: Vec<_> =
        daemon.inside.processes().into_iter().filter(|task| task.name == "containerd-shim").collect();
    assert_eq!(shims.len(), 2, "{shims:#?}");
    for pod in pods {
        pod.remove();
    }
}

/// As a kubelet restarts one: a new container of the same name in the same pod.
pub(crate) fn a_container_is_replaced_after_its_end(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    for attempt in 0..3 {
        let container =
            pod.start("again", &Options::shell(&format!("echo attempt {attempt}; exit {attempt}")));
        assert_eq!(container.wait(LIMIT).0, attempt);
        assert!(container.logged("stdout").ends_with(&format!("attempt {attempt}\n")));
        container.remove().expect("RemoveContainer");
    }
    let error = pod.create("ended", &Options::shell("exit 0"));
    error.start().expect("StartContainer");
    error.wait(LIMIT);
    assert!(error.start().is_err(), "a container starts once");
    pod.remove();
}

pub(crate) fn the_network_is_the_pods(daemon: &mut Daemon) {
    let pods = [Pod::run(daemon), Pod::run(daemon)];
    let addresses = pods.each_ref().map(|pod| {
        let status = pod.status().expect("PodSandboxStatus");
        status.network.expect("a network").ip
    });
    assert_ne!(addresses[0], addresses[1]);
    for (pod, address) in pods.iter().zip(&addresses) {
        for name in ["a", "b"] {
            let (out, error, _) = pod.start(name, &Options::default()).shell("ip -4 -o addr show dev eth0");
            assert!(out.contains(&format!("inet {address}/")), "{address}: {out}{error}");
        }
    }
    for pod in pods {
        pod.remove();
    }
}
