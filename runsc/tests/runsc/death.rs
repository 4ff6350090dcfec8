//! `kill -9` of each process of a sandbox and of its supervisor.

use std::{
    env,
    fs::File,
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use lattice_runsc::{AgentStdio, Platform, Runsc, sweep};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    overlap::await_sandbox,
    support::{Place, each_runsc, eventually, read_line, status_field, tree},
};

const RUNSC: &str = "LATTICE_TEST_RUNSC";
const STATE: &str = "LATTICE_TEST_STATE";

const SCRIPT: &str = "LATTICE_TEST_SCRIPT";
/// Set for a supervisor whose sandbox waits for its start.
const WAITS: &str = "LATTICE_TEST_WAITS";

/// This test binary again, as the supervisor of one agent.
fn supervisor_command(runsc: &Runsc, place: &Place) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["death::supervisor", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(RUNSC, format!("{} {}", runsc.platform, runsc.path.display()))
        .env(STATE, place.state())
        .env("LATTICE_TEST_ROOTFS", place.rootfs())
        // Killed, it removes nothing; what is in our place is removed by us.
        .env("TMPDIR", place.state().parent().unwrap());
    command
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn kill_9_of_runsc_sentry_or_gofer_ends_all() {
    each_runsc(|runsc| {
        let place = Place::new();
        for victim in ["runsc", "sentry", "gofer"] {
            let (mut agent, ..) =
                place.start_and_await_line(runsc, &place.spec("echo up; sleep 600 & exec sleep 600"));
            let pids = tree(agent.pid());
            let is_gofer = |pid: &&u32| {
                std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .unwrap_or_default()
                    .contains("\0gofer\0")
            };
            let target = match victim {
                "runsc" => agent.pid(),
                "sentry" => agent.sandbox_pid(),
                _ => *pids.iter().find(is_gofer).expect("a gofer"),
            };
            kill_9(target);
            if victim != "gofer" {
                let ended = agent.wait();
                eprintln!("{victim}: {ended:?}");
                assert_ne!(ended.unwrap_or(1), 0);
                eventually("the end of every process", || {
                    pids.iter().all(|pid| status_field(*pid, "Pid").is_none())
                });
            }
            drop(agent);
            // A killed process whose parent was killed too is there until init has reaped it.
            eventually("the end of every process", || {
                pids.iter().all(|pid| status_field(*pid, "Pid").is_none())
            });
            assert!(place.left().is_empty());
        }
    });
}

#[test]
fn kill_9_of_the_supervisor_ends_the_agent_and_sweep_removes_the_rest() {
    kill_9_of_the_supervisor(false);
}

#[test]
fn kill_9_of_the_supervisor_before_the_start_leaves_no_more() {
    kill_9_of_the_supervisor(true);
}

fn kill_9_of_the_supervisor(before_the_start: bool) {
    each_runsc(|runsc| {
        let place = Place::new();
        let mut supervisor = supervisor_command(runsc, &place);
        if before_the_start {
            supervisor.env(WAITS, "");
        }
        let mut supervisor = supervisor.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = supervisor.stdout.take().unwrap();
        while !read_line(&mut out).ends_with("agent is up") {
            assert!(supervisor.try_wait().unwrap().is_none(), "the supervisor failed");
        }
        if before_the_start {
            await_sandbox(&place);
        }
        let pids = tree(supervisor.id());
        assert!(pids.len() >= 4, "supervisor, runsc, sentry, gofer: {pids:?}");
        assert!(sweep(&place.state()).unwrap().is_empty(), "a live sandbox is left alone");
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        eventually("the end of every process", || pids.iter().all(|pid| status_field(*pid, "Pid").is_none()));
        drop(out);

        let left = place.left();
        assert_eq!(left.len(), 1, "{left:?}");
        let id = left[0].file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(sweep(&place.state()).unwrap(), [format!("sandbox {id}")]);
        assert!(place.left().is_empty());
        assert!(!Path::new("/sys/fs/cgroup/memory").join(&id).exists());
        assert!(sweep(&place.state()).unwrap().is_empty());
        assert_eq!(place.sh(runsc, "echo again"), "again\n");
    });
}

#[test]
#[ignore = "not a test: the process that another test kills"]
fn supervisor() {
    let Ok(state) = env::var(STATE) else { return };
    let runsc = env::var(RUNSC).unwrap();
    let (platform, path) = runsc.split_once(' ').unwrap();
    let runsc =
        Runsc { path: path.into(), version: String::new(), platform: platform.parse::<Platform>().unwrap() };
    let place = Place::new();
    let mut spec = place
        .spec(&env::var(SCRIPT).unwrap_or_else(|_| "echo agent is up; sleep 600 & exec sleep 600".into()));
    spec.rootfs = PathBuf::from(env::var("LATTICE_TEST_ROOTFS").unwrap());
    spec.memory_bytes = Some(256 << 20);
    if env::var(WAITS).is_ok() {
        let stdio = AgentStdio::new(Stdio::null(), Stdio::null(), Stdio::null());
        let _waits = runsc.create(&place.netns().path(), &spec, Path::new(&state), stdio).unwrap();
        println!("\nno agent is up");
        thread::sleep(Duration::from_secs(600));
    }
    let mut agent = runsc.start(&place.ready(), &spec, Path::new(&state)).unwrap();
    // While the agent runs our standard input, which is also its, does not block.
    while std::io::stdin().read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        thread::sleep(Duration::from_millis(20));
    }
    if env::var(SCRIPT).is_ok() {
        agent.wait().unwrap();
    }
}

/// Here because it too needs a supervisor of its own: standard streams are a process's.
#[test]
fn both_streams_into_one_file_lose_nothing() {
    each_runsc(|runsc| {
        let place = Place::new();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"before\n").unwrap();
        let mut supervisor = supervisor_command(runsc, &place)
            .stdin(Stdio::null())
            .stdout(file.reopen_at_end())
            .stderr(file.reopen_at_end())
            .env(SCRIPT, "for i in 1 2 3; do echo out $i; echo err $i >&2; done")
            .spawn()
            .unwrap();
        assert!(supervisor.wait().unwrap().success());
        let text = std::fs::read_to_string(file.path()).unwrap();
        for line in ["before", "out 1", "out 2", "out 3", "err 1", "err 2", "err 3"] {
            assert!(text.contains(line), "{line} is lost: {text}");
        }
    });
}

#[test]
fn a_lent_pipe_blocks_again_at_the_end() {
    each_runsc(|runsc| {
        let place = Place::new();
        let (from, to) = std::io::pipe().unwrap();
        let is_blocking =
            || !OFlag::from_bits_retain(fcntl(&from, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK);
        let mut supervisor = supervisor_command(runsc, &place)
            .stdin(from.try_clone().unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = supervisor.stdout.take().unwrap();
        while !read_line(&mut out).ends_with("agent is up") {}
        eventually("runsc lets the pipe not block", || !is_blocking());
        drop(to);
        supervisor.wait().unwrap();
        assert!(is_blocking());
    });
}

trait ReopenAtEnd {
    fn reopen_at_end(&self) -> File;
}

impl ReopenAtEnd for tempfile::NamedTempFile {
    fn reopen_at_end(&self) -> File {
        File::options().append(true).open(self.path()).unwrap()
    }
}
