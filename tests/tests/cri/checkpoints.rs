//! Containers that are written down, and go on from there.

use lattice_tests::{
    containerd::{Daemon, Options, Pod},
    lab::wait_until,
};

use crate::{LIMIT, ctr::Ctr};

/// Counts, and knows a number that is nowhere but in its memory.
const COUNTER: &str = "own=$(head -c 16 /dev/urandom | md5sum); n=0; while :; do n=$((n+1)); echo $n $own > /tmp/n; sleep 0.1; done";

/// How far it has counted, and its own number.
fn told(ctr: &Ctr<'_>, exec: &mut u32) -> Option<(u32, String)> {
    *exec += 1;
    let out = ctr.task(&["exec", "--exec-id", &format!("e{exec}"), "counter", "cat", "/tmp/n"]).stdout;
    let (count, own) = out.trim().split_once(' ')?;
    Some((count.parse().ok()?, own.to_owned()))
}

pub(crate) fn a_container_is_written_down_and_goes_on(daemon: &mut Daemon) {
    let before = daemon.remains();
    let daemon: &Daemon = daemon;
    let ctr = Ctr::without_network(daemon);
    let mut execs = 0;
    let mut wait_for = |least: u32| {
        let mut seen = None;
        wait_until(LIMIT, "the count", || {
            seen = told(&ctr, &mut execs);
            seen.as_ref().is_some_and(|(count, _)| *count >= least)
        });
        seen.expect("a count")
    };
    ctr.detached("counter", COUNTER);
    let (_, own) = wait_for(5);
    let ran = |args: &[&str]| {
        let out = daemon.run_ctr(&[&["container"], args].concat());
        assert_eq!(out.code, 0, "{args:?}: {}", out.stderr);
    };
    let written =
        daemon.run_ctr(&["container", "checkpoint", "--rw", "--image", "--task", "counter", "written"]);
    if written.stderr.contains("take 20240729 or newer") {
        println!("SKIPPED: checkpoint and restore: {}", written.stderr.trim());
        assert_eq!(ctr.state("counter"), "RUNNING");
        return;
    }
    assert_eq!(written.code, 0, "{}", written.stderr);
    let (count, same) = wait_for(6);
    assert_eq!(same, own, "it goes on");
    wait_for(count + 2);
    assert_eq!(ctr.task(&["kill", "-s", "KILL", "counter"]).code, 0);
    wait_until(LIMIT, "its end", || ctr.state("counter") == "STOPPED");
    ctr.remove("counter");

    // Twice: what the first one left is not in the way.
    for _ in 0..2 {
        ran(&["restore", "--rw", "--live", "counter", "written"]);
        let (count, restored) = wait_for(5);
        assert_eq!(restored, own, "its memory is that of then");
        wait_for(count + 2);
        assert_eq!(ctr.task(&["kill", "-s", "KILL", "counter"]).code, 0);
        wait_until(LIMIT, "its end", || ctr.state("counter") == "STOPPED");
        ctr.remove("counter");
    }
    // ctr's FIFOs stay, because its restore does not wait for the container, and so does what containerd unpacked of the image.
    let left = [daemon.inside.path("/run/containerd/fifo"), daemon.directory("tmp")];
    for dir in left {
        std::fs::remove_dir_all(&dir).expect("what ctr and containerd leave");
        std::fs::create_dir(&dir).expect("their directory");
    }
    daemon.assert_nothing_since(&before);
}

/// What cannot be written down is told so, and goes on.
pub(crate) fn what_cannot_be_written_down_says_why(daemon: &mut Daemon) {
    let ctr = Ctr::new(daemon);
    ctr.detached("counter", COUNTER);
    let image = daemon.directory("image").display().to_string();
    let out = ctr.task(&["checkpoint", "--image-path", &image, "counter"]);
    assert!(out.code != 0 && out.stderr.contains("not implemented"), "with the host's network: {out:?}");
    assert_eq!(ctr.state("counter"), "RUNNING");
    assert_eq!(ctr.task(&["kill", "-s", "KILL", "counter"]).code, 0);
    wait_until(LIMIT, "its end", || ctr.state("counter") == "STOPPED");
    ctr.remove("counter");

    let pod = Pod::run(daemon);
    let member = pod.start("member", &Options::default());
    let out = ctr.task(&["checkpoint", "--image-path", &image, &member.id]);
    assert!(out.code != 0 && out.stderr.contains("one container of several"), "{out:?}");
    assert_eq!(member.shell("echo alive").0, "alive\n");
    pod.remove();
}
