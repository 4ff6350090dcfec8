//! Commands in a running container.

use std::{thread, time::Duration};

use lattice_tests::{
    containerd::{Daemon, Options, Pod},
    lab::wait_until,
};

use crate::LIMIT;

pub(crate) fn exec_has_output_and_code(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let container = pod.start("box", &Options::default());
    assert_eq!(
        container.shell("echo out; echo err >&2; exit 9"),
        ("out\n".to_owned(), "err\n".to_owned(), 9)
    );
    assert_eq!(container.shell("true"), (String::new(), String::new(), 0));
    assert_eq!(container.shell("kill -KILL $$").2, 137);
    let (out, _, code) = container.shell("seq 1 200000");
    assert_eq!((out.len(), code), ((1..=200_000).map(|n: u32| n.to_string().len() + 1).sum(), 0));
    assert!(out.ends_with("\n200000\n"));
    assert_eq!(container.state(), "running");
    pod.remove();
}

/// Also while another one runs, and when one is not waited for.
pub(crate) fn exec_beside_others(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let container = pod.start("box", &Options::default());
    let codes: Vec<i32> = thread::scope(|scope| {
        let execs: Vec<_> = (0..8)
            .map(|number| {
                let container = &container;
                scope.spawn(move || container.shell(&format!("sleep 0.2; exit {number}")).2)
            })
            .collect();
        execs.into_iter().map(|exec| exec.join().expect("an exec")).collect()
    });
    assert_eq!(codes, (0..8).collect::<Vec<i32>>());
    let late = container.exec(&["/bin/sh", "-c", "echo begun > /tmp/begun; exec sleep inf"], 1);
    assert!(late.is_err(), "one second had passed: {late:?}");
    assert_eq!(container.shell("cat /tmp/begun").0, "begun\n");
    wait_until(LIMIT, "the late one to be killed", || {
        !container.shell("ps | grep -v grep | grep -c 'sleep inf'").0.trim().parse().is_ok_and(|n: u32| n > 1)
    });
    pod.remove();
}

pub(crate) fn an_exec_of_nothing_is_refused(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let container = pod.start("box", &Options::default());
    let error = match container.exec(&["/bin/no-such-program"], 20) {
        Err(error) => error.message,
        Ok(answer) => panic!("code {} and {:?}", answer.exit_code, String::from_utf8_lossy(&answer.stderr)),
    };
    assert!(error.contains("no-such-program") || error.contains("no such file"), "{error}");
    assert_eq!(container.shell("echo still here").0, "still here\n");
    container.stop(0).expect("StopContainer");
    assert!(container.exec(&["/bin/true"], 20).is_err(), "an exec in a container that has ended");
    pod.remove();
}

/// The shim of one pod lives long: what an exec leaves adds up.
pub(crate) fn many_execs_leave_nothing(daemon: &mut Daemon) {
    let pod = Pod::run(daemon);
    let container = pod.start("box", &Options::default());
    let shim = |what: &str| {
        let shims =
            daemon.inside.processes().into_iter().filter(|task| task.name.starts_with("containerd-shim"));
        let pid = shims.map(|task| task.pid).next().expect("a shim");
        std::fs::read_dir(daemon.inside.path(format!("/proc/{pid}/{what}"))).expect("a directory").count()
    };
    let files = || {
        let find =
            daemon.inside.run("find", &["/run", daemon.directory("tmp").to_str().unwrap_or_default()], LIMIT);
        find.stdout.lines().count()
    };
    for _ in 0..3 {
        container.shell("true");
    }
    let before = (shim("fd"), files());
    for number in 0..30 {
        assert_eq!(container.shell(&format!("exit {number}")).2, number);
    }
    wait_until(Duration::from_secs(30), "descriptors and files as before", || {
        // A thread more or less of Go's is no leak, nor is a descriptor in use at the moment.
        shim("fd") <= before.0 + 4 && files() <= before.1 + 4
    });
    let zombies: Vec<_> = daemon.inside.processes().into_iter().filter(|task| task.state == 'Z').collect();
    assert!(zombies.len() <= 1, "{zombies:?}");
    pod.remove();
}
