//! containerd ends and starts again while pods run.

use std::fs;

use lattice_tests::{
    containerd::{Container, Daemon, Options, Pod},
    lab::wait_until,
};

use crate::LIMIT;

/// Waits for a file, and then writes 4,000 lines: more than a FIFO holds.
const WRITER: &str = "echo ready; while [ ! -e /flags/go ]; do sleep 0.05; done; n=0; while [ $n -lt 4000 ]; do echo number $n of four thousand; \
                      n=$((n+1)); done; while [ ! -e /flags/end ]; do sleep 0.05; done; exit 6";

fn writer(daemon: &Daemon, pod: &Pod, name: &str, script: &str) -> Container {
    let flags = daemon.directory("flags");
    let options = Options { mounts: vec![(flags, "/flags".into(), false)], ..Options::shell(script) };
    let container = pod.start(name, &options);
    wait_until(LIMIT, "the writer", || container.logged("stdout") == "ready\n");
    container
}

fn whole() -> String {
    let lines: String = (0..4000).map(|n| format!("number {n} of four thousand\n")).collect();
    format!("ready\n{lines}")
}

/// The pod is the same as before, in every respect, and what it wrote meanwhile is in its log.
pub(crate) fn containerd_restarts_with_running_pods(daemon: &mut Daemon) {
    let before = daemon.remains();
    let (pod, idle, busy) = {
        let pod = Pod::run(daemon);
        let idle = pod.start("idle", &Options::default());
        let busy = writer(daemon, &pod, "busy", WRITER);
        (pod.detach(), idle, busy)
    };
    daemon.kill_containerd();
    fs::write(daemon.directory("flags").join("go"), "").expect("the flag");
    daemon.start_containerd();
    let pod = pod.attach(daemon);
    assert_eq!(idle.state(), "running");
    assert_eq!(idle.shell("echo still here").0, "still here\n");
    wait_until(LIMIT, "the last line", || busy.logged("stdout").len() >= whole().len());
    assert!(busy.logged("stdout") == whole(), "{}", busy.logged("stdout"));
    fs::write(daemon.directory("flags").join("end"), "").expect("the flag");
    assert_eq!(busy.wait(LIMIT).0, 6, "its end is told after the restart");
    let late = pod.start("late", &Options::shell("exit 5"));
    assert_eq!(late.wait(LIMIT).0, 5, "the pod takes more containers");
    assert!(idle.stats().is_ok());
    idle.stop(0).expect("StopContainer");
    assert_eq!(idle.wait(LIMIT).0, 137);
    pod.remove();
    daemon.assert_nothing_since(&before);
}

/// Nobody is there to be told: it is made up for. What was not read by then is lost with containerd's CRI, which throws it away.
pub(crate) fn containers_end_while_containerd_is_away(daemon: &mut Daemon) {
    let before = daemon.remains();
    let flag = daemon.directory("flags").join("go");
    let script = "echo ready; while [ ! -e /flags/go ]; do sleep 0.05; done; touch /flags/ended; exit 9";
    let (pod, container) = {
        let pod = Pod::run(daemon);
        let container = writer(daemon, &pod, "short", script);
        (pod.detach(), container)
    };
    daemon.kill_containerd();
    fs::write(flag, "").expect("the flag");
    let ended = daemon.directory("flags").join("ended");
    wait_until(LIMIT, "the container to end unseen", || ended.exists());
    daemon.start_containerd();
    let pod = pod.attach(daemon);
    assert_eq!(container.wait(LIMIT).0, 9);
    assert_eq!(container.logged("stdout"), "ready\n");
    pod.remove();
    daemon.assert_nothing_since(&before);
}

/// Four writers that never rest. What containerd had read when it was killed is lost with it; everything later is there.
pub(crate) fn restart_under_load(daemon: &mut Daemon) {
    let script = "echo ready; n=0; while [ ! -e /flags/stop ]; do echo $n; n=$((n+1)); done; echo last $n; while [ ! -e /flags/end ]; do sleep 0.05; done; exit 4";
    let (pod, writers) = {
        let pod = Pod::run(daemon);
        let writers = ["a", "b", "c"].map(|name| {
            let options = Options {
                mounts: vec![(daemon.directory("flags"), "/flags".into(), true)],
                ..Options::shell(script)
            };
            pod.start(name, &options)
        });
        (pod.detach(), writers)
    };
    for _ in 0..3 {
        let lengths = writers.each_ref().map(|writer| writer.logged("stdout").len());
        wait_until(LIMIT, "more output of all", || {
            writers
                .iter()
                .zip(lengths)
                .all(|(writer, length)| writer.logged("stdout").len() > length + 20_000)
        });
        daemon.kill_containerd();
        daemon.start_containerd();
    }
    fs::write(daemon.directory("flags").join("stop"), "").expect("the flag");
    let pod = pod.attach(daemon);
    for writer in &writers {
        wait_until(LIMIT, "the last line", || writer.last_logged().starts_with("last "));
        let text = writer.logged("stdout");
        let last =
            text.lines().next_back().and_then(|line| line.strip_prefix("last ")).and_then(|n| n.parse().ok());
        let last: usize = last.unwrap_or_else(|| panic!("the last line of {} bytes", text.len()));
        let gaps = gaps(&text);
        // At most what one read of containerd holds, once for each of three restarts: 32 KiB of lines of two bytes or more.
        assert!(gaps.len() <= 6 && gaps.iter().sum::<usize>() < 3 * 16 * 1024, "{gaps:?} of {last}");
    }
    fs::write(daemon.directory("flags").join("end"), "").expect("the flag");
    for writer in &writers {
        assert_eq!(writer.wait(LIMIT).0, 4);
    }
    pod.remove();
}

/// How many numbers are missing, wherever some are. A line that was cut in two is one that is missing.
fn gaps(text: &str) -> Vec<usize> {
    let numbers: Vec<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let missing = numbers.windows(2).map(|pair| pair[1].abs_diff(pair[0]).saturating_sub(1));
    missing.filter(|missing| *missing > 0).collect()
}
