//! Commands that are killed with the test that started them.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A command in a network namespace, its output kept in files.
pub struct Process {
    child: Child,
    /// Its name, for messages.
    pub name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code; 128+n for a signal.
    pub code: i32,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

/// `program` inside the namespace at `netns`, killed when the calling thread ends.
pub fn command(netns: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", netns.display()))
        .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
        .arg(program);
    command.stdin(Stdio::null());
    command
}

/// `limit`, stretched by the factor in `LATTICE_SLOW`: an emulated machine is slower by about ten.
pub fn patience(limit: Duration) -> Duration {
    let factor = std::env::var("LATTICE_SLOW").ok().and_then(|text| text.parse().ok());
    limit.saturating_mul(factor.unwrap_or(1))
}

/// Direct children, by the parent that the kernel names.
pub fn children(parent: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if after.split_whitespace().nth(1) == Some(parent.to_string().as_str()) {
            found.push(pid);
        }
    }
    found
}

impl Process {
    /// Starts `command`, with its output in `dir`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(mut command: Command, name: &str, dir: &Path) -> Self {
        let unique = format!(
            "{name}-{}",
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos())
        );
        let (stdout, stderr) = (dir.join(format!("{unique}.out")), dir.join(format!("{unique}.err")));
        // Appending: the sentry writes to a file at an offset of its own, over what lattice wrote before.
        let create = |path: &Path| {
            let open = File::options().create(true).append(true).open(path);
            open.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        command.stdout(create(&stdout)).stderr(create(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { child, name: name.to_owned(), stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs no more.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap_or(0);
        kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// What it has written to stdout and stderr so far.
    pub fn output(&self) -> (String, String) {
        (read(&self.stdout), read(&self.stderr))
    }

    /// What it has written to stderr beyond the first `offset` bytes: for whoever looks again and again.
    pub fn stderr_after(&self, offset: u64) -> Vec<u8> {
        let mut text = Vec::new();
        let _ = File::open(&self.stderr).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_to_end(&mut text)
        });
        text
    }

    /// Waits until either output contains `text`.
    ///
    /// # Panics
    /// When the process ends or `limit` passes without it.
    pub fn wait_for(&mut self, text: &str, limit: Duration) {
        let deadline = Instant::now() + patience(limit);
        loop {
            let ended = self.child.try_wait().ok().flatten();
            let (out, err) = self.output();
            if out.contains(text) || err.contains(text) {
                return;
            }
            assert!(ended.is_none(), "{} ended ({ended:?}) without {text:?}\n{out}{err}", self.name);
            assert!(Instant::now() < deadline, "{} did not say {text:?} in time\n{out}{err}", self.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When `limit` passes first.
    pub fn finish(mut self, limit: Duration) -> Output {
        let deadline = Instant::now() + patience(limit);
        let status = loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                break status;
            }
            let (out, err) = self.output();
            assert!(Instant::now() < deadline, "{} did not end in time\n{out}{err}", self.name);
            thread::sleep(Duration::from_millis(5));
        };
        let (stdout, stderr) = self.output();
        Output { code: code(status), stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn read(path: &Path) -> String {
    let mut text = Vec::new();
    let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}
