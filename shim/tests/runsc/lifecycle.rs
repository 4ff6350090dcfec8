//! From create to delete.

use lattice_shim::{error::Error, runsc::Status};
use nix::sys::signal::{Signal, kill};

use crate::place::{Place, line};

const ENDS: [(&str, u32); 4] =
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$; sleep 9", 143), ("kill -KILL $$; sleep 9", 137)];

pub(crate) async fn exit_codes_of_root_containers_are_right(place: Place) {
    for (script, code) in ENDS {
        let (sandbox, _output) = place.create(&place.id, script).await;
        assert_eq!(place.runsc.status(&place.id).await.unwrap(), Status::Created);
        place.start(&place.id).await;
        assert_eq!(place.end(sandbox).await.status, code, "{script}");
        place.runsc.delete(&place.id).await.unwrap();
    }
    place.clean_up(&[]).await;
}

pub(crate) async fn exit_codes_of_members_are_right(place: Place) {
    let sandbox = place.pause().await;
    for (script, code) in ENDS {
        let (of, _output) = place.run("m", script).await;
        assert_eq!(of, sandbox, "it is in the pod's sandbox");
        assert_eq!(place.runsc.wait("m").await.unwrap().unwrap().status, code, "{script}");
        assert_eq!(place.runsc.wait("m").await.unwrap().unwrap().status, code, "asked again");
        place.runsc.delete("m").await.unwrap();
    }
    place.clean_up(&["m"]).await;
}

pub(crate) async fn fifty_short_members_and_none_is_missed(place: Place) {
    place.pause().await;
    for code in 0..50 {
        let id = format!("m{code}");
        let (_, output) = place.run(&id, &format!("echo {code}; exit {code}")).await;
        assert_eq!(place.runsc.wait(&id).await.unwrap().unwrap().status, code);
        place.runsc.delete(&id).await.unwrap();
        assert_eq!(output.text().await.0, format!("{code}\n"));
    }
    place.clean_up(&[]).await;
}

pub(crate) async fn ten_short_roots_and_none_is_missed(place: Place) {
    for code in 1..=10 {
        let (sandbox, output) = place.run(&place.id, &format!("echo {code}; exit {code}")).await;
        assert_eq!(place.end(sandbox).await.status, code);
        place.runsc.delete(&place.id).await.unwrap();
        assert_eq!(output.text().await.0, format!("{code}\n"));
    }
    place.clean_up(&[]).await;
}

pub(crate) async fn a_member_outlived_by_nothing_is_told_so(place: Place) {
    let sandbox = place.pause().await;
    place.run("m", "exec sleep 600").await;
    let waiting = place.runsc.wait("m");
    let ending = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        kill(sandbox, Signal::SIGKILL).unwrap();
    };
    assert_eq!(tokio::join!(waiting, ending).0.unwrap(), None);
    assert_eq!(place.end(sandbox).await.status, 137);
    let after = place.runsc.kill("m", 15, None, false).await;
    assert!(matches!(after, Err(Error::NotFound(_))), "{after:?}");
    place.clean_up(&["m"]).await;
}

pub(crate) async fn signals_reach_whom_they_are_meant_for(place: Place) {
    place.pause().await;
    let script = "trap 'echo got; exit 3' USR1; sleep 600 & echo up; while :; do sleep 0.05; done";
    let (_, output) = place.run("m", script).await;
    assert_eq!(line(&output.stdout).await, "up");
    let pids = place.runsc.processes("m").await.unwrap();
    assert!(pids.len() >= 2, "{pids:?}");
    assert_eq!(
        place.runsc.processes(&place.id).await.unwrap().len(),
        1,
        "another container's are not listed"
    );
    for (pid, id) in [(Some(4242), "m"), (None, "nobody")] {
        let error = place.runsc.kill(id, 15, pid, false).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{error}");
    }
    place.runsc.kill("m", 10, None, false).await.unwrap();
    assert_eq!(place.runsc.wait("m").await.unwrap().unwrap().status, 3);
    let error = place.runsc.kill("m", 15, None, false).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    // What the first process left is in the container still, and all of it can be ended.
    place.runsc.kill("m", 9, None, true).await.unwrap();
    place.runsc.delete("m").await.unwrap();
    assert_eq!(place.runsc.status(&place.id).await.unwrap(), Status::Running);
    place.clean_up(&[]).await;
}

pub(crate) async fn what_was_only_created_can_be_killed(place: Place) {
    let (sandbox, _output) = place.create(&place.id, "exec sleep 600").await;
    place.runsc.kill(&place.id, 9, None, false).await.unwrap();
    assert_eq!(place.end(sandbox).await.status, 137);
    place.clean_up(&[]).await;
}

pub(crate) async fn delete_may_be_repeated(place: Place) {
    place.runsc.delete(&place.id).await.unwrap();
    place.pause().await;
    place.run("m", "exec sleep 600").await;
    for id in ["m", "m", &place.id, &place.id] {
        place.runsc.delete(id).await.unwrap();
    }
    let gone = place.runsc.status(&place.id).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound(_)), "{gone}");
    place.clean_up(&[]).await;
}

pub(crate) async fn pause_and_resume_are_seen(place: Place) {
    place.pause().await;
    for (verb, status) in [("pause", Status::Paused), ("resume", Status::Running)] {
        match verb {
            "pause" => place.runsc.pause(&place.id).await.unwrap(),
            _ => place.runsc.resume(&place.id).await.unwrap(),
        }
        assert_eq!(place.runsc.status(&place.id).await.unwrap(), status);
    }
    let sandbox = place.pod.bundle(&place.id).unwrap().join("init.pid");
    let sandbox: i32 = std::fs::read_to_string(sandbox).unwrap().parse().unwrap();
    place.runsc.kill(&place.id, 9, None, false).await.unwrap();
    assert_eq!(place.end(nix::unistd::Pid::from_raw(sandbox)).await.status, 137);
    assert_eq!(place.runsc.status(&place.id).await.unwrap(), Status::Stopped);
    place.clean_up(&[]).await;
}
