//! Namespaces for a daemon and all that it starts, ended by one SIGKILL.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lattice_overlay::Netns;

use crate::process::{Output, Process};

const START: Duration = Duration::from_secs(60);

/// Sets the namespaces up, tells its own process id outside, and reaps whatever loses its parent.
///
/// `/proc` is still the outer one when the id is read. The shell collects all children while it waits, also those it did not start.
const INIT: &str = "read pid rest < /proc/self/stat && mount -t proc proc /proc && mount -t tmpfs tmpfs /run && \
                    mount -t tmpfs tmpfs /var/lib && ip link set lo up && echo init=$pid && \
                    exec sh -c 'sleep infinity & wait'";

/// Mount, process id and network namespaces; `/run` and `/var/lib` are empty in it.
pub struct Inside {
    keeper: Option<Process>,
    init: u32,
    log: PathBuf,
}

impl Inside {
    /// New namespaces; output of their programs goes to `dir`.
    ///
    /// # Panics
    /// Without root.
    pub fn new(dir: &Path) -> Self {
        let mut unshare = Command::new("setpriv");
        unshare.args(["--pdeathsig", "KILL", "--"]);
        unshare.args(["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", INIT]);
        let mut keeper = Process::spawn(unshare, "namespaces", dir);
        keeper.wait_for("init=", START);
        let said = keeper.output().0;
        let init = said.trim().strip_prefix("init=").and_then(|pid| pid.parse().ok());
        Self {
            keeper: Some(keeper),
            init: init.unwrap_or_else(|| panic!("no pid in {said:?}")),
            log: dir.to_owned(),
        }
    }

    /// `program` in the namespaces, killed with the thread that starts it.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-p", "-n", "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program.as_ref());
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Runs `program` to its end.
    ///
    /// # Panics
    /// When `limit` passes first.
    pub fn run(&self, program: impl AsRef<Path>, args: &[&str], limit: Duration) -> Output {
        let name = program.as_ref().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = self.command(program);
        command.args(args);
        Process::spawn(command, &name, &self.log).finish(limit)
    }

    /// Where the test finds what is `path` in the namespaces.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let inner = path.as_ref().strip_prefix("/").unwrap_or(path.as_ref()).to_owned();
        PathBuf::from(format!("/proc/{}/root", self.init)).join(inner)
    }

    /// The network namespace.
    ///
    /// # Panics
    /// When it is gone.
    pub fn netns(&self) -> Netns {
        Netns::open(Path::new(&format!("/proc/{}/ns/net", self.init))).expect("the network namespace")
    }

    /// Kills all of it, and waits until the kernel has taken it away.
    pub fn end(&mut self) {
        self.keeper = None;
        let deadline = Instant::now() + START;
        while Path::new(&format!("/proc/{}", self.init)).exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends `signal`, such as `KILL`, to a process by its id in the namespaces; one that is gone already is fine.
    pub fn kill(&self, signal: &str, pid: u32) {
        let _ = self.run("kill", &["-s", signal, &pid.to_string()], START);
    }

    /// All processes, with their ids in the namespaces, but those that keep them.
    pub fn processes(&self) -> Vec<Task> {
        let proc = self.path("/proc");
        let pids = fs::read_dir(proc).into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| self.task(pid)).filter(|task| !task.keeps()).collect()
    }

    /// The process with that id in the namespaces.
    pub fn task(&self, pid: u32) -> Option<Task> {
        let dir = self.path(format!("/proc/{pid}"));
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let (state, parent) = (fields.next()?.chars().next()?, fields.next()?.parse().ok()?);
        let line = fs::read(dir.join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
        let name = fs::read_to_string(dir.join("comm")).ok()?.trim().to_owned();
        Some(Task { pid, parent, state, name, line })
    }
}

/// A process in the namespaces.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id there.
    pub pid: u32,
    /// Its parent's id there; 0 for one that came from outside.
    pub parent: u32,
    /// As in proc(5): `Z` is a zombie.
    pub state: char,
    /// The first 15 bytes of its program's name.
    pub name: String,
    /// Its command line; empty for a zombie.
    pub line: String,
}

impl Task {
    fn keeps(&self) -> bool {
        self.pid == 1 || (self.parent == 1 && self.line == "sleep infinity")
    }
}
