//! The order of events.

use lattice_tests::containerd::{Daemon, Events, Options, Pod};

use crate::LIMIT;

/// created, started, executed in, ended, deleted: each once and in that order, also of a container that ends at once.
pub(crate) fn events_come_in_order(daemon: &mut Daemon) {
    let mut events = Events::subscribe(daemon);
    let pod = Pod::run(daemon);
    let container = pod.start("long", &Options::default());
    container.shell("exit 3");
    container.stop(0).expect("StopContainer");
    container.wait(LIMIT);
    let short = pod.start("short", &Options::shell("exit 7"));
    short.wait(LIMIT);
    let (pause, long, short) = (pod.id.clone(), container.id.clone(), short.id.clone());
    pod.remove();
    for id in [&long, &short, &pause] {
        events.wait(LIMIT, "delete", |event| event.topic == "delete" && &event.container == id);
    }
    assert_eq!(events.topics(&pause), ["create", "start", "exit", "delete"]);
    assert_eq!(events.topics(&short), ["create", "start", "exit", "delete"]);
    let topics = events.topics(&long);
    let kinds: Vec<&str> = topics.iter().filter_map(|topic| topic.split(' ').next()).collect();
    assert_eq!(
        kinds,
        ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"],
        "{topics:?}"
    );
    let exec = topics[2].split(' ').next_back().unwrap_or_default();
    assert_eq!(topics[3], format!("exec-started {exec}"));
    assert_eq!(topics[4], format!("exit {exec}"), "the exec ended first");

    let seen = events.wait(LIMIT, "an exit", |event| event.topic == "exit");
    let exit = |id: &str| {
        seen.iter().find(|event| event.topic == "exit" && event.process == id).and_then(|e| e.status)
    };
    assert_eq!((exit(exec), exit(&long), exit(&short)), (Some(3), Some(137), Some(7)));
    for event in seen.iter().filter(|event| ["create", "start"].contains(&event.topic.as_str())) {
        assert!(event.pid.is_some_and(|pid| pid > 0), "{event:?}");
    }
}

/// A program that is not there: nothing was started, so nothing ends.
pub(crate) fn events_of_a_failed_start(daemon: &mut Daemon) {
    let mut events = Events::subscribe(daemon);
    let pod = Pod::run(daemon);
    let container = pod
        .create("nothing", &Options { command: vec!["/bin/no-such-program".into()], ..Options::default() });
    let error = container.start().expect_err("there is no such program");
    assert!(error.message.contains("no-such-program") || error.message.contains("no such file"), "{error}");
    assert_eq!(container.state(), "exited");
    let good = pod.start("good", &Options::shell("exit 0"));
    good.wait(LIMIT);
    events.wait(LIMIT, "exit", |event| event.topic == "exit" && event.container == good.id);
    let topics = events.topics(&container.id);
    assert!(!topics.contains(&"start".to_owned()), "{topics:?}");
    pod.remove();
}
