//! What to run: the agent's program, its root file system and its limits, and the checks on them.

use std::{
    fmt,
    fs::{File, OpenOptions},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use lattice_wire::PeerName;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
};

use crate::RunscError;

/// The sentry and the gofer alone take some 25 MiB of a sandbox's memory limit; below this nothing useful runs.
const MIN_MEMORY: u64 = 64 << 20;
const MAX_CPUS: f64 = 4096.0;
/// `execve(2)` on the host allows 2 MiB for arguments and environment together; gVisor's is the same.
const MAX_STRINGS: usize = 2 << 20;

/// What becomes of the agent's writes to its root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writable {
    /// They succeed, are kept in memory (counted against the memory limit) and end with the sandbox.
    #[default]
    Overlay,
    /// They fail with `EROFS`; only `/tmp`, `/dev/shm` and the like are writable.
    ReadOnly,
}

/// One agent.
#[derive(Clone)]
pub struct AgentSpec {
    /// Its name, which is also its host name: one DNS label.
    pub name: String,
    /// The directory that becomes `/`. The agent's writes never reach it.
    pub rootfs: PathBuf,
    /// The program: an absolute path inside `rootfs`.
    pub binary: String,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// Environment added to (or replacing parts of) the default `PATH` and `HOME` (by the
    /// rootfs' `/etc/passwd`). Nothing of the caller's own
    /// environment reaches the agent.
    pub env: Vec<(String, String)>,
    /// Working directory inside `rootfs`, absolute.
    pub cwd: String,
    /// User id inside the sandbox.
    pub uid: u32,
    /// Group id inside the sandbox.
    pub gid: u32,
    /// Limit of the whole sandbox in bytes, gVisor's own memory included.
    pub memory_bytes: Option<u64>,
    /// Limit of the whole sandbox in CPUs (0.5 is half of one).
    pub cpus: Option<f64>,
    /// Limit of host tasks the sandbox may use for the agent; a fixed reserve for gVisor's own threads is added to it.
    pub pids: Option<u32>,
    /// What becomes of writes.
    pub rootfs_writable: Writable,
    /// The agent's `/etc/resolv.conf`. Where `rootfs` has none, runsc makes an empty file to mount ours on.
    pub resolv_conf: Option<String>,
    /// The agent's `/etc/hosts`; likewise.
    pub hosts: Option<String>,
    /// Whether standard input is a terminal that the agent shall have as its own. runsc then stays in our process
    /// group and passes the terminal's signals on: the caller must not itself die of ^C.
    pub terminal: bool,
}

/// Environment values may be secrets, so only their names are shown.
impl fmt::Debug for AgentSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentSpec")
            .field("name", &self.name)
            .field("rootfs", &self.rootfs)
            .field("binary", &self.binary)
            .field("args", &self.args.len())
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish_non_exhaustive()
    }
}

/// Checks a spec against this machine without making anything.
///
/// # Errors
/// [`RunscError::Invalid`] with one line that names the flag at fault.
pub fn validate(spec: &AgentSpec) -> Result<(), RunscError> {
    check(spec).map_err(RunscError::Invalid)
}

fn check(spec: &AgentSpec) -> Result<(), String> {
    spec.name.parse::<PeerName>().map_err(|error| error.to_string())?;
    check_strings(spec)?;
    check_limits(spec)?;
    let root = open_rootfs(&spec.rootfs)?;
    check_binary(&root, &spec.rootfs, &spec.binary)?;
    check_cwd(&root, &spec.cwd)
}

fn check_strings(spec: &AgentSpec) -> Result<(), String> {
    if !spec.binary.starts_with('/') {
        return Err(format!(
            "agent binary {:?} must be an absolute path inside the agent rootfs",
            spec.binary
        ));
    }
    if spec.args.iter().chain([&spec.binary, &spec.cwd]).any(|text| text.contains('\0')) {
        return Err("agent arguments must not contain a NUL byte".into());
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("invalid agent environment variable {name:?}: use NAME=VALUE"));
        }
    }
    let size = spec.args.iter().map(|arg| arg.len() + 1).sum::<usize>()
        + spec.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    if size > MAX_STRINGS {
        return Err(format!("agent arguments and environment are {size} bytes: the limit is {MAX_STRINGS}"));
    }
    Ok(())
}

fn check_limits(spec: &AgentSpec) -> Result<(), String> {
    if let Some(bytes) = spec.memory_bytes
        && !(MIN_MEMORY..=i64::MAX as u64).contains(&bytes)
    {
        return Err(format!("a memory limit of {bytes} bytes is too small for gVisor: give at least 64 MiB"));
    }
    if let Some(cpus) = spec.cpus
        && !(0.01..=MAX_CPUS).contains(&cpus)
    {
        return Err(format!("invalid CPU limit {cpus}: give 0.01 to {MAX_CPUS}"));
    }
    if spec.pids == Some(0) {
        return Err("invalid process limit 0: give at least 1".into());
    }
    Ok(())
}

fn open_rootfs(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let root = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
        .open(path)
        .map_err(|error| match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            Errno::ENOTDIR | Errno::ELOOP => {
                format!("agent rootfs {shown} is not a directory (a symbolic link is not followed)")
            }
            _ => format!("agent rootfs {shown}: {error}; build one with `make rootfs`"),
        })?;
    let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let ours = root.metadata().map(id).map_err(|error| format!("agent rootfs {shown}: {error}"))?;
    if std::fs::metadata("/").map(id).is_ok_and(|host| host == ours) {
        return Err(format!("agent rootfs {shown} is this host's own root: the agent would read all of it"));
    }
    Ok(root)
}

/// Opens `path` as the agent will: symbolic links, absolute ones and `..` too, stay inside `root`.
fn open_inside(root: &File, path: &str) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

fn check_binary(root: &File, rootfs: &Path, binary: &str) -> Result<(), String> {
    let rootfs = rootfs.display();
    let meta = open_inside(root, binary)
        .map_err(std::io::Error::from)
        .and_then(|fd| File::from(fd).metadata())
        .map_err(|error| format!("agent binary {binary} inside {rootfs}: {error}"))?;
    if !meta.is_file() {
        return Err(format!("agent binary {binary} inside {rootfs} is not a regular file"));
    }
    if meta.mode() & 0o111 == 0 {
        return Err(format!("agent binary {binary} inside {rootfs} is not executable: chmod +x it"));
    }
    Ok(())
}

fn check_cwd(root: &File, cwd: &str) -> Result<(), String> {
    if !cwd.starts_with('/') {
        return Err(format!(
            "agent working directory {cwd:?} must be an absolute path inside the agent rootfs"
        ));
    }
    let made_by_runsc = ["/tmp", "/dev/shm", "/proc", "/sys"].contains(&cwd.trim_end_matches('/'));
    let is_dir = || File::from(open_inside(root, cwd).ok()?).metadata().ok().map(|meta| meta.is_dir());
    if made_by_runsc || is_dir() == Some(true) {
        Ok(())
    } else {
        Err(format!("agent working directory {cwd} is not a directory inside the agent rootfs"))
    }
}

#[cfg(test)]
mod tests;
