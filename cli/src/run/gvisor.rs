//! The command under gVisor, without root: `runsc --rootless` in namespaces that a user without privilege has made.
//!
//! ```text
//!  process 1 (root of its user namespace only) ──► runsc ──► sentry, gofer ──► the command
//! ```
//!
//! The network is that of the namespace: a link that leads into the sandbox's own process, and no other. The files are those that the view of the
//! namespace shows, read-only but for what was named. What the command calls is answered by gVisor's kernel, so none of its system calls
//! reaches the host's.

use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lattice_bootstrap::{Failure, Kind};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Where runsc keeps what it has, in the namespace's own `/tmp`, which the command does not see.
const STATE: &str = "/tmp/.lattice";
const ID: &str = "command";

/// Places of gVisor's own, in memory.
const OWN: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// How runsc runs where nobody is root: without groups to limit, with the network that is there, and with the files as they are.
const FLAGS: [&str; 5] =
    ["--rootless", "--network=host", "--ignore-cgroups", "--overlay2=none", "--file-access=exclusive"];

/// What is to be run, and where.
pub(super) struct Bundle<'a> {
    pub(super) command: &'a [OsString],
    pub(super) environment: &'a [(String, String)],
    pub(super) writable: &'a [PathBuf],
    /// The working directory.
    pub(super) cwd: &'a Path,
}

/// Where runsc is.
///
/// # Errors
/// When there is none, with the remedy.
pub(crate) fn find() -> Result<PathBuf, Failure> {
    let named = env::var_os("LATTICE_RUNSC").map(PathBuf::from);
    let found = named.or_else(|| crate::doctor::on_path("runsc").map(PathBuf::from));
    let path = found.and_then(|path| fs::canonicalize(path).ok());
    path.ok_or_else(|| {
        let text = "--isolate gvisor takes runsc, which is not on PATH: apt-get install runsc, or name it by LATTICE_RUNSC";
        Failure::new(Kind::Program, text)
    })
}

/// Whether it runs a program here, found out by running one.
///
/// # Errors
/// What it said.
pub(crate) fn works(runsc: &Path) -> Result<(), String> {
    let state = env::temp_dir().join(format!("lattice-runsc-{}", std::process::id()));
    let run = || -> io::Result<std::process::Output> {
        DirBuilder::new().mode(0o700).create(&state)?;
        let mut command = Command::new(runsc);
        command.args(FLAGS).arg("--root").arg(&state).args([
            "do",
            "--force-overlay=false",
            "--",
            "/bin/true",
        ]);
        command.stdin(Stdio::null()).output()
    };
    let ran = run();
    let _ = fs::remove_dir_all(&state);
    let failed = |reason: &dyn std::fmt::Display| format!("{} runs nothing here: {reason}", runsc.display());
    let out = ran.map_err(|error| failed(&error))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    Err(failed(&last.map_or_else(|| out.status.to_string(), str::to_owned)))
}

impl Bundle<'_> {
    /// What runs it. Everything that it takes is put in place.
    ///
    /// # Errors
    /// What could not be written.
    pub(super) fn prepare(&self, runsc: &Path) -> io::Result<Command> {
        let bundle = Path::new(STATE).join("bundle");
        DirBuilder::new().recursive(true).mode(0o700).create(&bundle)?;
        fs::write(bundle.join("config.json"), self.spec()?.to_string())?;
        let mut command = self::command(runsc);
        command.args(["run", "--bundle"]).arg(bundle).arg(ID);
        Ok(command)
    }

    fn spec(&self) -> io::Result<Value> {
        let text = |value: &OsString| {
            let text = value.to_str().map(str::to_owned);
            text.ok_or_else(|| {
                io::Error::other("an argument is no UTF-8, which gVisor's specification takes")
            })
        };
        let arguments = self.command.iter().map(text).collect::<io::Result<Vec<_>>>()?;
        let inherited = env::vars().filter(|(name, _)| !self.environment.iter().any(|(new, _)| new == name));
        let environment: Vec<_> = inherited
            .chain(self.environment.iter().cloned())
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut mounts =
            vec![mount("/proc", "proc", &[]), mount("/dev", "tmpfs", &[]), mount("/sys", "sysfs", &["ro"])];
        mounts.extend(OWN.map(|dir| mount(dir, "tmpfs", &["mode=1777"])));
        let named = self.writable.iter().map(|dir| (dir.as_path(), "rw"));
        // Where a /tmp of gVisor's own would cover it.
        let here = (!self.writable.iter().any(|dir| self.cwd.starts_with(dir))).then_some((self.cwd, "ro"));
        for (dir, how) in named.chain(here) {
            mounts.push(
                json!({ "destination": dir, "source": dir, "type": "bind", "options": ["rbind", how] }),
            );
        }
        let namespaces = ["pid", "ipc", "uts", "mount", "user"].map(|kind| json!({ "type": kind }));
        let only_us = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        Ok(json!({
            "ociVersion": "1.0.0",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": arguments,
                "env": environment,
                "cwd": self.cwd,
                "noNewPrivileges": true,
            },
            "root": { "path": "/", "readonly": true },
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces,
                "uidMappings": only_us,
                "gidMappings": only_us,
            },
        }))
    }
}

fn mount(at: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": at, "source": kind, "type": kind, "options": options })
}

fn command(runsc: &Path) -> Command {
    let mut command = Command::new(runsc);
    command.args(FLAGS).arg("--root").arg(Path::new(STATE).join("runsc"));
    command
}

/// Gives the command a signal. It is reaped with everything else.
pub(super) fn signal(runsc: &Path, signal: Signal) {
    let mut kill = command(runsc);
    kill.args(["kill", ID, &(signal as i32).to_string()]);
    let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

/// Whether a program of that name would be found, as a shell looks for it.
pub(super) fn is_there(program: &OsString) -> io::Result<()> {
    let is_file = |path: &Path| match fs::metadata(path) {
        Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => Ok(()),
        Ok(_) => Err(io::ErrorKind::PermissionDenied.into()),
        Err(error) => Err(error),
    };
    if program.as_encoded_bytes().contains(&b'/') {
        return is_file(Path::new(program));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let all = env::split_paths(&path).map(|dir| is_file(&dir.join(program)));
    all.reduce(|first, next| first.or(next)).unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
}
