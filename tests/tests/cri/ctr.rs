//! Containers that no kubelet made: `ctr`, and its kind, which give no CRI annotations.

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use lattice_tests::{
    Output,
    containerd::{Daemon, Runtime, daemon::NAMESPACE, image},
    lab::wait_until,
    process::patience,
};

use crate::LIMIT;

/// `ctr` for the runtime of a daemon.
pub(crate) struct Ctr<'a> {
    daemon: &'a Daemon,
    options: Vec<String>,
}

impl<'a> Ctr<'a> {
    pub(crate) fn new(daemon: &'a Daemon) -> Self {
        let kind = daemon.runtime.kind();
        let mut options = vec!["--runtime".to_owned(), kind.to_owned()];
        if daemon.runtime == Runtime::Lattice {
            let file = daemon.dir.path().join("lattice.toml");
            options.extend(["--runtime-config-path".into(), file.display().to_string()]);
        }
        Self { daemon, options }
    }

    /// For containers whose only link is loopback.
    pub(crate) fn without_network(daemon: &'a Daemon) -> Self {
        let mut ctr = Self::new(daemon);
        if daemon.runtime == Runtime::Lattice {
            let text = fs::read_to_string(daemon.dir.path().join("lattice.toml")).expect("the configuration");
            let file = daemon.dir.path().join("none.toml");
            fs::write(&file, text.replace("\"plain\"", "\"none\"")).expect("another configuration");
            *ctr.options.last_mut().expect("options") = file.display().to_string();
        }
        ctr
    }

    /// `ctr run` of a script in a shell, as container `id`.
    pub(crate) fn run_command(&self, more: &[&str], id: &str, script: &str) -> Command {
        let mut run =
            self.daemon.ctr(NAMESPACE, &["run", "--cgroup", &format!("{}/{id}", self.daemon.cgroup)]);
        run.args(&self.options).args(more).args([image::NAME, id, "/bin/sh", "-c", script]);
        run
    }

    /// Waits for its end. Its outputs are pipes.
    pub(crate) fn finish(&self, mut child: Child) -> Output {
        let read = |mut stream: Box<dyn Read + Send>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = read(Box::new(child.stdout.take().expect("a pipe")));
        let stderr = read(Box::new(child.stderr.take().expect("a pipe")));
        let deadline = Instant::now() + patience(LIMIT);
        let status = loop {
            if let Some(status) = child.try_wait().expect("its status") {
                break Some(status);
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                break None;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let (stdout, stderr) = (stdout.join().expect("its output"), stderr.join().expect("its errors"));
        let status = status.unwrap_or_else(|| panic!("ctr did not end: {stdout}{stderr}"));
        Output { code: status.code().unwrap_or(-1), stdout, stderr }
    }

    /// `ctr run --rm`, to its end.
    fn run(&self, id: &str, script: &str) -> Output {
        self.finish(piped(&mut self.run_command(&["--rm"], id, script)))
    }

    /// A container in the background.
    pub(crate) fn detached(&self, id: &str, script: &str) {
        let child = piped(&mut self.run_command(&["--detach", "--null-io"], id, script));
        let out = self.finish(child);
        assert_eq!(out.code, 0, "{}", out.stderr);
    }

    pub(crate) fn task(&self, args: &[&str]) -> Output {
        self.daemon.run_ctr(&[&["task"], args].concat())
    }

    pub(crate) fn state(&self, id: &str) -> String {
        let list = self.task(&["list"]).stdout;
        let line = list.lines().find(|line| line.starts_with(&format!("{id} ")));
        line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or("gone").to_owned()
    }

    pub(crate) fn remove(&self, id: &str) {
        let out = self.task(&["delete", "--force", id]);
        assert_eq!(out.code, 0, "task delete {id}: {}", out.stderr);
        let out = self.daemon.run_ctr(&["container", "delete", id]);
        assert_eq!(out.code, 0, "container delete {id}: {}", out.stderr);
    }
}

fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ctr")
}

pub(crate) fn a_container_without_cri(daemon: &mut Daemon) {
    let before = daemon.remains();
    let ctr = Ctr::new(daemon);
    for number in 0..10 {
        // The same id each time: nothing of the last one is in the way.
        let out = ctr.run("again", &format!("echo out {number}; echo err >&2; exit 7"));
        let seen = (out.stdout.as_str(), out.stderr.as_str(), out.code);
        assert_eq!(seen, (format!("out {number}\n").as_str(), "err\n", 7));
    }
    daemon.assert_nothing_since(&before);
}

/// Whether the runtime says so when the task is created, as runc does, or when it is started, as gVisor does.
pub(crate) fn a_failed_start_leaves_nothing(daemon: &mut Daemon) {
    let before = daemon.remains();
    let ctr = Ctr::new(daemon);
    for _ in 0..2 {
        let mut run = daemon.ctr(NAMESPACE, &["run"]);
        run.args(["--cgroup", &format!("{}/nothing", daemon.cgroup)]);
        run.args(&ctr.options).args([image::NAME, "nothing", "/bin/no-such-program"]);
        let out = ctr.finish(piped(&mut run));
        assert_ne!(out.code, 0);
        assert!(
            out.stderr.contains("no-such-program") || out.stderr.contains("no such file"),
            "{}",
            out.stderr
        );
        // ctr leaves a task that it could not start.
        if ctr.state("nothing") != "gone" {
            assert_eq!(ctr.task(&["delete", "--force", "nothing"]).code, 0);
        }
        assert_eq!(daemon.run_ctr(&["container", "delete", "nothing"]).code, 0);
    }
    assert_eq!(ctr.run("nothing", "exit 3").code, 3, "the id can be used again");
    let _ = std::fs::remove_dir_all(daemon.inside.path("/run/containerd/fifo"));
    std::fs::create_dir_all(daemon.inside.path("/run/containerd/fifo")).expect("ctr's directory");
    daemon.assert_nothing_since(&before);
}

/// What was reading is dead. The container may have to wait for another reader, but whoever kills it does not.
pub(crate) fn a_reader_that_is_gone(daemon: &mut Daemon) {
    let before = daemon.remains();
    let ctr = Ctr::new(daemon);
    let mut reader =
        piped(&mut ctr.run_command(&[], "writer", "while :; do echo 0123456789012345678901234567890; done"));
    // Open until ctr is dead: else it is sent SIGPIPE, and forwards that to the container like any signal.
    let mut output = reader.stdout.take().expect("a pipe");
    output.read_exact(&mut [0; 32]).expect("the first line");
    let _ = reader.kill();
    let _ = reader.wait();
    // It may write before its start has been told.
    wait_until(LIMIT, "the writer's start", || ctr.state("writer") != "CREATED");
    assert_eq!(ctr.state("writer"), "RUNNING");
    assert_eq!(ctr.task(&["exec", "--exec-id", "e", "writer", "true"]).code, 0, "others are not held up");
    assert_eq!(ctr.task(&["kill", "-s", "KILL", "writer"]).code, 0);
    wait_until(LIMIT, "the writer's end", || ctr.state("writer") == "STOPPED");
    ctr.remove("writer");
    // ctr would have removed its FIFOs.
    let fifos = daemon.inside.path("/run/containerd/fifo");
    std::fs::remove_dir_all(&fifos).expect("the FIFOs of the dead ctr");
    std::fs::create_dir(&fifos).expect("ctr's directory");
    daemon.assert_nothing_since(&before);
}

/// The container waits for its reader, and nothing is lost. It ends only when all is read: ctr takes no more of a container that has ended.
pub(crate) fn a_slow_reader(daemon: &mut Daemon) {
    let ctr = Ctr::new(daemon);
    let mut child = piped(&mut ctr.run_command(&["--rm"], "writer", "seq 100001 250000; exec sleep inf"));
    // Long enough for all buffers on the way to be full; that they are is not needed for the rest to hold.
    thread::sleep(Duration::from_millis(500));
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut text = vec![0; 150_000 * 7];
    for part in text.chunks_mut(20_000) {
        stdout.read_exact(part).expect("the whole output");
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(ctr.task(&["kill", "-s", "KILL", "writer"]).code, 0);
    child.stdout = Some(stdout);
    let out = ctr.finish(child);
    assert_eq!((out.stdout.as_str(), out.code), ("", 137), "{}", out.stderr);
    let expected: String = (100_001..=250_000).map(|n| format!("{n}\n")).collect();
    assert!(text == expected.as_bytes(), "in order");
}

pub(crate) fn pause_and_resume(daemon: &mut Daemon) {
    let before = daemon.remains();
    let ctr = Ctr::new(daemon);
    ctr.detached("sleeper", "while :; do sleep 0.05; done");
    for _ in 0..2 {
        assert_eq!(ctr.task(&["pause", "sleeper"]).code, 0);
        assert_eq!(ctr.state("sleeper"), "PAUSED");
        assert_eq!(ctr.task(&["resume", "sleeper"]).code, 0);
        assert_eq!(ctr.state("sleeper"), "RUNNING");
    }
    assert_eq!(ctr.task(&["exec", "--exec-id", "e", "sleeper", "true"]).code, 0);
    // What stands still can be killed, too.
    assert_eq!(ctr.task(&["pause", "sleeper"]).code, 0);
    assert_eq!(ctr.task(&["kill", "-s", "KILL", "sleeper"]).code, 0);
    wait_until(LIMIT, "its end", || ctr.state("sleeper") == "STOPPED");
    ctr.remove("sleeper");
    daemon.assert_nothing_since(&before);
}

pub(crate) fn signals_and_kill(daemon: &mut Daemon) {
    let before = daemon.remains();
    let ctr = Ctr::new(daemon);
    ctr.detached("deaf", "trap '' TERM; trap 'exit 9' USR1; touch /tmp/ready; while :; do sleep 0.05; done");
    let ready = || ctr.task(&["exec", "--exec-id", "ready", "deaf", "ls", "/tmp/ready"]).code == 0;
    wait_until(LIMIT, "the traps", ready);
    assert_eq!(ctr.task(&["kill", "-s", "TERM", "deaf"]).code, 0);
    let delete = ctr.task(&["delete", "deaf"]);
    assert!(delete.code != 0 && ctr.state("deaf") == "RUNNING", "a running task is not deleted: {delete:?}");
    assert_ne!(ctr.task(&["start", "deaf"]).code, 0, "a task starts once");
    assert_eq!(ctr.task(&["kill", "-s", "USR1", "deaf"]).code, 0);
    wait_until(LIMIT, "its end", || ctr.state("deaf") == "STOPPED");
    let late = ctr.task(&["kill", "-s", "KILL", "deaf"]);
    assert!(late.code != 0 && late.stderr.contains("not found"), "{late:?}");
    let exec = ctr.task(&["exec", "--exec-id", "late", "deaf", "true"]);
    assert_ne!(exec.code, 0, "an exec in a container that has ended");
    let delete = ctr.task(&["delete", "deaf"]);
    assert!(delete.code == 9 || delete.stderr.contains("exit code 9"), "releases of ctr differ: {delete:?}");
    assert_eq!(daemon.run_ctr(&["container", "delete", "deaf"]).code, 0);
    daemon.assert_nothing_since(&before);
}
