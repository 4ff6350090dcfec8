//! The reaper on the first thread of a process, where the shim has it: libtest would give it another.

#![allow(clippy::unwrap_used)] // without the harness, nothing here counts as a test

use std::{
    future::Future,
    process::{Command, Stdio},
    time::Duration,
};

use lattice_shim::reaper::Reaper;
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let reaper = Reaper::start().expect("the kernel makes us the subreaper");
    check("statuses_of_a_thousand_short_processes_are_right", statuses(&reaper)).await;
    check("signals_are_told_apart_and_stops_are_no_ends", signals(&reaper)).await;
    check("an_orphan_is_adopted_before_and_after_its_end", orphans(&reaper)).await;
    check("what_other_threads_start_is_left_to_them", other_threads(&reaper)).await;
    check("a_program_that_is_not_there_is_an_error", missing(&reaper)).await;
    assert!(zombies().is_empty(), "zombies are left: {:?}", zombies());
}

async fn check(name: &str, test: impl Future<Output = ()>) {
    tokio::time::timeout(LIMIT, test).await.unwrap_or_else(|_| panic!("{name} took longer than {LIMIT:?}"));
    println!("test {name} ... ok");
}

fn sh(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
}

async fn statuses(reaper: &Reaper) {
    for round in 0..40 {
        let awaited: Vec<_> =
            (0..25).map(|code| (code, reaper.spawn(&mut sh(&format!("exit {code}"))).unwrap())).collect();
        for (code, mut awaited) in awaited {
            assert_eq!(awaited.exit().await.status, code, "round {round}");
        }
    }
}

async fn signals(reaper: &Reaper) {
    for (script, status) in [("kill -TERM $$", 143), ("kill -KILL $$", 137), ("kill -40 $$", 168)] {
        assert_eq!(reaper.spawn(&mut sh(script)).unwrap().exit().await.status, status, "{script}");
    }
    let mut stopped = reaper.spawn(&mut sh("kill -STOP $$; exit 3")).unwrap();
    while !stat_has_state(stopped.pid(), 'T') {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(tokio::time::timeout(Duration::from_millis(20), stopped.exit()).await.is_err());
    nix::sys::signal::kill(stopped.pid(), nix::sys::signal::Signal::SIGCONT).unwrap();
    assert_eq!(stopped.exit().await.status, 3);
}

async fn orphans(reaper: &Reaper) {
    let dir = tempfile::tempdir().unwrap();
    let (pid_file, go) = (dir.path().join("pid"), dir.path().join("go"));
    let script =
        |then: &str| format!("sh -c 'echo $$ >{0}.new; mv {0}.new {0}; {then}' &", pid_file.display());
    let born = || async {
        loop {
            if let Some(pid) =
                std::fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok())
            {
                return Pid::from_raw(pid);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let wait_for_go = format!("until [ -e {} ]; do sleep 0.01; done; exit 9", go.display());
    reaper.spawn(&mut sh(&script(&wait_for_go))).unwrap().exit().await;
    let mut alive = reaper.adopt(born().await);
    std::fs::write(&go, "").unwrap();
    assert_eq!(alive.exit().await.status, 9);

    std::fs::remove_file(&pid_file).unwrap();
    reaper.spawn(&mut sh(&script("exit 8"))).unwrap().exit().await;
    let pid = born().await;
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(reaper.adopt(pid).exit().await.status, 8, "it ended before it was adopted");
}

async fn other_threads(reaper: &Reaper) {
    let foreign = tokio::task::spawn_blocking(|| {
        for _ in 0..200 {
            assert_eq!(sh("exit 5").status().expect("std finds its own child").code(), Some(5));
        }
    });
    // Meanwhile ours end too, so the reaper is busy.
    while !foreign.is_finished() {
        assert_eq!(reaper.spawn(&mut sh("exit 6")).unwrap().exit().await.status, 6);
    }
    foreign.await.unwrap();
}

async fn missing(reaper: &Reaper) {
    for _ in 0..20 {
        let error = reaper.spawn(&mut Command::new("/nonexistent")).map(drop).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        tokio::task::yield_now().await;
    }
}

fn stat_has_state(pid: Pid, state: char) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(state))
}

fn zombies() -> Vec<Pid> {
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
    pids.filter(|pid| stat_has_state(*pid, 'Z')).collect()
}
