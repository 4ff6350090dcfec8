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
    fs::{self, DirBuilder, File},
    io,
    os::fd::AsRawFd as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lattice_bootstrap::{Failure, Kind, failure::chain};
use lattice_overlay::userns::hide::{self, Found};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};

/// Where runsc keeps what it has, in the namespace's own `/tmp`, which the command does not see.
const STATE: &str = "/tmp/.lattice";
const ID: &str = "command";

/// Places of gVisor's own, in memory.
const OWN: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// How runsc runs where nobody is root: without groups to limit, with the network that is there, and with the files as they are.
const FLAGS: [&str; 5] =
    ["--rootless", "--network=host", "--ignore-cgroups", "--overlay2=none", "--file-access=exclusive"];

/// runsc, found before the command's view of the files, which may show something else where it lies, such as below `/tmp`.
pub(super) struct Runsc(File);

impl Runsc {
    /// That at `path`, if it runs a program here. What it takes for that lies in a directory of this mount namespace's own, and goes with it whenever
    /// that ends.
    ///
    /// # Errors
    /// What the kernel says, or runsc.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let runsc = File::open(path).map(Self).map_err(|error| format!("{}: {error}", path.display()))?;
        hide::with_empty(&env::temp_dir(), || tried(path, &runsc.path()))
            .map_err(|error| chain(&error))??;
        Ok(runsc)
    }

    /// For this process and those that it starts.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// What is to be run, and where.
pub(super) struct Bundle<'a> {
    pub(super) command: &'a [OsString],
    pub(super) environment: &'a [(String, String)],
    pub(super) writable: &'a [Found],
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
    tried(runsc, runsc)
}

/// Likewise, of a runsc that is run by another path than the user knows.
fn tried(known_as: &Path, runsc: &Path) -> Result<(), String> {
    let run = || -> io::Result<std::process::Output> {
        // In the host's own directory, which others use, too: by a number of processes it would be the same for all, since each is the first of its
        // namespace.
        let state = tempfile::Builder::new()
            .prefix("lattice-runsc-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()?;
        let mut command = Command::new(runsc);
        command.args(FLAGS).arg("--root").arg(state.path()).args([
            "do",
            "--force-overlay=false",
            "--",
            "/bin/true",
        ]);
        // The working directory may be covered.
        command.current_dir("/").stdin(Stdio::null()).output()
    };
    let failed =
        |reason: &dyn std::fmt::Display| format!("{} runs nothing here: {reason}", known_as.display());
    let out = run().map_err(|error| failed(&error))?;
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

    /// What is inherited, but for what is put in its place.
    fn environment(&self, inherited: impl Iterator<Item = (OsString, OsString)>) -> io::Result<Vec<String>> {
        let mut all = Vec::new();
        for (name, value) in inherited {
            if self.environment.iter().any(|(new, _)| name == **new) {
                continue;
            }
            match (name.to_str(), value.to_str()) {
                (Some(name), Some(value)) => all.push(format!("{name}={value}")),
                // Without its value, which may be a secret.
                _ => return Err(no_text(&format!("the environment variable {}", name.display()))),
            }
        }
        all.extend(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        Ok(all)
    }

    fn spec(&self) -> io::Result<Value> {
        let text = |value: &OsString| {
            let text = value.to_str().map(str::to_owned);
            text.ok_or_else(|| no_text("an argument"))
        };
        let arguments = self.command.iter().map(text).collect::<io::Result<Vec<_>>>()?;
        let environment = self.environment(env::vars_os())?;
        let mut mounts =
            vec![mount("/proc", "proc", &[]), mount("/dev", "tmpfs", &[]), mount("/sys", "sysfs", &["ro"])];
        mounts.extend(OWN.map(|dir| mount(dir, "tmpfs", &["mode=1777"])));
        let named = self.writable.iter().map(|dir| (dir.path.as_path(), "rw"));
        // Where a /tmp of gVisor's own would cover it.
        let here =
            (!self.writable.iter().any(|dir| self.cwd.starts_with(&dir.path))).then_some((self.cwd, "ro"));
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

fn no_text(what: &str) -> io::Error {
    io::Error::other(format!("{what} is no UTF-8, which gVisor's specification takes"))
}

fn mount(at: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": at, "source": kind, "type": kind, "options": options })
}

fn command(runsc: &Path) -> Command {
    let mut command = Command::new(runsc);
    command.args(FLAGS).arg("--root").arg(Path::new(STATE).join("runsc"));
    command
}

/// Has a child give the command a signal. It is reaped with everything else, and ends with another code than 0 when there is no command yet.
///
/// # Errors
/// When it cannot be started.
pub(super) fn signal(runsc: &Path, signal: Signal) -> io::Result<Pid> {
    let mut kill = command(runsc);
    kill.args(["kill", ID, &(signal as i32).to_string()]);
    let carrier = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    i32::try_from(carrier.id()).map(Pid::from_raw).map_err(io::Error::other)
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

#[cfg(test)]
mod tests {
    use std::{os::unix::ffi::OsStringExt as _, thread};

    use super::*;

    #[test]
    fn two_that_look_at_once_do_not_meet_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        // Notes where it was told to keep its state, and who may look into that.
        let program = dir.path().join("runsc");
        let seen = dir.path().join("seen");
        let text = format!(
            "#!/bin/sh\nwhile [ \"$1\" != --root ]; do shift; done\nstat -c '%a %n' \"$2\" >> {}\nsleep 0.2\ntest -d \"$2\"\n",
            seen.display()
        );
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| works(&program)));
            for one in both {
                one.join().unwrap().unwrap();
            }
        });
        let seen = fs::read_to_string(seen).unwrap();
        let all: Vec<_> = seen.lines().map(|line| line.split_once(' ').unwrap()).collect();
        assert_eq!(all.len(), 2, "{seen}");
        assert_ne!(all[0].1, all[1].1);
        for (mode, path) in all {
            assert_eq!(mode, "700");
            assert!(!Path::new(path).exists(), "{path} is left");
        }
    }

    #[test]
    fn what_is_no_text_is_refused_and_its_value_not_told() {
        let strange = || OsString::from_vec(b"secret\xff".to_vec());
        let bundle = |environment| Bundle { command: &[], environment, writable: &[], cwd: Path::new("/") };
        let ours = [("A".to_owned(), "ours".to_owned())];
        let told = |inherited: Vec<(OsString, OsString)>| bundle(&ours).environment(inherited.into_iter());
        assert_eq!(told(vec![("A".into(), strange()), ("B".into(), "b".into())]).unwrap(), ["B=b", "A=ours"]);
        let error = told(vec![("B".into(), strange())]).unwrap_err().to_string();
        assert!(error.contains("variable B is no UTF-8") && !error.contains("secret"), "{error}");
    }
}
