//! The shim's socket: its name, and who has it.
//!
//! Two `start`s of one pod may run at once, and a killed shim leaves its socket. Both are settled under a lock on the directory,
//! which is held for a connect and a bind. A shim that ends removes its socket while it still listens: nobody can have replaced it.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::DirBuilderExt as _, fs::FileTypeExt as _, net::UnixListener},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
        stat::{Mode, umask},
    },
};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Where all shims have theirs.
pub const DEFAULT_DIR: &str = "/run/containerd/s";
/// What fits on every system that containerd knows.
const MAX_PATH: usize = 104;
/// The lock is held for less than a millisecond.
const LOCK_LIMIT: Duration = Duration::from_secs(3);

/// Whose a socket is.
#[derive(Debug)]
pub enum Claim {
    /// Ours now, and it listens.
    Ours(UnixListener),
    /// Somebody listens already.
    Theirs,
}

/// The path for a pod of `namespace` of the containerd at `address`.
///
/// # Errors
/// [`Error::Invalid`] when `dir` is too long.
pub fn path(dir: &Path, address: &str, namespace: &str, pod: &str) -> Result<PathBuf> {
    let path = dir.join(hex::encode(Sha256::digest(format!("{address}/{namespace}/{pod}"))));
    if path.as_os_str().len() <= MAX_PATH {
        return Ok(path);
    }
    Err(Error::Invalid(format!(
        "{}: a socket's path may have {MAX_PATH} bytes; shorten the directory",
        path.display()
    )))
}

/// Takes the socket, replacing one at which nobody listens. Sets the umask for a moment: call it while there is one thread.
///
/// # Errors
/// Names the path.
pub fn claim(path: &Path) -> Result<Claim> {
    let what = || Error::io(format!("bind {}", path.display()));
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(what())?;
    let _lock = lock(dir).map_err(what())?;
    if is_served(path).map_err(what())? {
        return Ok(Claim::Theirs);
    }
    remove(path).map_err(what())?;
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound.map(Claim::Ours).map_err(what())
}

/// Removes our own socket. Call it before the listener is closed.
///
/// # Errors
/// Names the path.
pub fn release(path: &Path) -> Result<()> {
    remove(path).map_err(Error::io(format!("remove {}", path.display())))
}

/// Removes a socket that nobody listens at any more.
///
/// # Errors
/// Names the path.
pub fn remove_stale(path: &Path) -> Result<()> {
    let what = || Error::io(format!("remove {}", path.display()));
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    let _lock = lock(path.parent().unwrap_or(Path::new("/"))).map_err(what())?;
    if is_served(path).map_err(what())? { Ok(()) } else { remove(path).map_err(what()) }
}

fn lock(dir: &Path) -> io::Result<File> {
    let (file, deadline) = (File::open(dir)?, Instant::now() + LOCK_LIMIT);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "another start holds the directory's lock",
                ));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn is_served(path: &Path) -> io::Result<bool> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        // EAGAIN: so many wait that one more does not fit.
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_of_each_containerd_has_its_own() {
        let dir = Path::new(DEFAULT_DIR);
        let one = path(dir, "/a.sock", "k8s.io", "p").unwrap();
        assert_eq!(one, path(dir, "/a.sock", "k8s.io", "p").unwrap());
        assert_ne!(one, path(dir, "/b.sock", "k8s.io", "p").unwrap());
        assert_ne!(one, path(dir, "/a.sock", "default", "p").unwrap());
        assert_eq!(one.as_os_str().len(), 82);
        assert!(path(&dir.join("x".repeat(30)), "/a.sock", "k8s.io", "p").is_err());
    }

    #[test]
    fn one_of_many_claims_wins_and_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s/socket");
        for _ in 0..20 {
            let claims: Vec<_> = thread::scope(|scope| {
                let all: Vec<_> = (0..8).map(|_| scope.spawn(|| claim(&path).unwrap())).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let ours = claims.iter().filter(|claim| matches!(claim, Claim::Ours(_))).count();
            assert_eq!(ours, 1);
            // Dropped without being removed: the next round finds it stale.
        }
        remove_stale(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_in_use_is_not_stale() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let claimed = claim(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        remove_stale(&path).unwrap();
        assert!(path.exists());
        drop(claimed);
    }
}
