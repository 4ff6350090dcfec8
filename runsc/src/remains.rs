//! What a sandbox leaves on the host, who owns it, and its removal.
//!
//! Everything of one sandbox is in `<state_dir>/runsc/<id>/`, and its supervisor holds a lock on the file `lock` there:
//! the kernel lets go of it when the supervisor ends, however it ends. So a directory that can be locked is remains.

mod pidfd;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{RunscError, bundle::Bundle, cgroup};

/// Where a runsc that cannot use its own root puts its control socket, by release.
const SOCKET_DIRS: [&str; 3] = ["/var/run", "/run", "/tmp"];

/// A sandbox's directory, owned by this process. Dropping it ends and removes the sandbox.
#[derive(Debug)]
pub(crate) struct Claim {
    name: String,
    id: String,
    bundle: Bundle,
    _lock: File,
}

impl Claim {
    /// Takes the place of agent `name` under `state_dir`, first removing what a dead supervisor left there.
    pub(crate) fn take(state_dir: &Path, name: &str) -> Result<Self, RunscError> {
        let sandboxes = sandboxes(state_dir);
        make_private(&sandboxes)?;
        let sandboxes = sandboxes.canonicalize().map_err(RunscError::io("open", &sandboxes))?;
        let id = id(&sandboxes, name).map_err(RunscError::io("read", &sandboxes))?;
        let dir = sandboxes.join(&id);
        make_private(&dir)?;
        let claim = Self::lock(name, id, dir)?.ok_or_else(|| RunscError::NameTaken(name.to_owned()))?;
        clear(&claim.id, &claim.bundle, Scope::Content)
            .map_err(|reason| RunscError::Remains { name: name.to_owned(), reason })?;
        make_private(&claim.bundle.root())?;
        Ok(claim)
    }

    /// `None` when a live process owns the directory.
    fn lock(name: &str, id: String, dir: PathBuf) -> Result<Option<Self>, RunscError> {
        let path = dir.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(RunscError::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(RunscError::io("lock", &path)(source)),
        }
        // Between open and lock the former owner may have removed the file: the lock would be on nothing.
        let same = |a: fs::Metadata, b: fs::Metadata| a.ino() == b.ino() && a.dev() == b.dev();
        let held = match (lock.metadata(), fs::metadata(&path)) {
            (Ok(locked), Ok(present)) => same(locked, present),
            _ => false,
        };
        Ok(held.then(|| Self { name: name.to_owned(), id, bundle: Bundle::at(dir), _lock: lock }))
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Kills every process of the sandbox, and waits until all have ended.
    pub(crate) fn kill_all(&self) -> Result<(), String> {
        kill_all(&self.bundle)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(reason) = clear(&self.id, &self.bundle, Scope::All) {
            tracing::warn!(agent = self.name, reason, "not everything of the sandbox could be removed");
        }
    }
}

/// Ends and removes every sandbox under `state_dir` whose supervisor is gone, and says which. Live ones stay.
///
/// # Errors
/// [`RunscError::Remains`] for the first sandbox that cannot be removed entirely, after trying all.
pub fn sweep(state_dir: &Path) -> Result<Vec<String>, RunscError> {
    let sandboxes = sandboxes(state_dir);
    let sandboxes = match sandboxes.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RunscError::io("open", sandboxes)(error)),
    };
    let (mut removed, mut failed) = (Vec::new(), None);
    for entry in fs::read_dir(&sandboxes).map_err(RunscError::io("list", &sandboxes))?.flatten() {
        let Ok(id) = entry.file_name().into_string() else { continue };
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let Some(name) = name_of(&id).filter(|_| is_dir) else { continue };
        let Some(claim) = Claim::lock(name, id.clone(), entry.path())? else { continue };
        match clear(&claim.id, &claim.bundle, Scope::All) {
            Ok(()) => removed.push(format!("sandbox {id}")),
            Err(reason) => failed = Some(RunscError::Remains { name: name.to_owned(), reason }),
        }
    }
    failed.map_or(Ok(removed), Err)
}

const LOCK: &str = "lock";
const PREFIX: &str = "lattice-";

fn sandboxes(state_dir: &Path) -> PathBuf {
    state_dir.join("runsc")
}

/// Unique on the host, not only under one state directory: cgroups and, in some releases, runsc's control sockets have
/// one name space for all.
fn id(sandboxes: &Path, name: &str) -> io::Result<String> {
    let meta = fs::metadata(sandboxes)?;
    Ok(format!("{PREFIX}{name}-{:x}.{:x}", meta.dev(), meta.ino()))
}

fn name_of(id: &str) -> Option<&str> {
    Some(id.strip_prefix(PREFIX)?.rsplit_once('-')?.0)
}

fn make_private(dir: &Path) -> Result<(), RunscError> {
    DirBuilder::new().mode(0o700).recursive(true).create(dir).map_err(RunscError::io("create", dir))
}

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    /// All but the directory and its lock: the place stays taken.
    Content,
    All,
}

fn clear(id: &str, bundle: &Bundle, scope: Scope) -> Result<(), String> {
    kill_all(bundle)?;
    cgroup::remove(id, fs::read_link(bundle.group()).ok())?;
    for dir in SOCKET_DIRS {
        remove(&Path::new(dir).join(format!("runsc-{id}.sock")))?;
    }
    let entries = match fs::read_dir(bundle.path()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", bundle.path().display())),
    };
    for entry in entries.flatten() {
        if entry.file_name() != LOCK {
            remove(&entry.path())?;
        }
    }
    if scope == Scope::All {
        // The lock last: while it is there no one else takes the place.
        remove(bundle.path())?;
    }
    Ok(())
}

fn kill_all(bundle: &Bundle) -> Result<(), String> {
    kill_sandbox(&bundle.root())
}

/// Kills every process of runsc's that was started with `--root=<root>`, and waits until all have ended; at most some seconds.
///
/// # Errors
/// Which process stays, and why.
pub fn kill_sandbox(root: &Path) -> Result<(), String> {
    let mut root_flag = std::ffi::OsString::from("--root=");
    root_flag.push(root);
    pidfd::kill_all_with_argument(&root_flag)
}

/// Waits `grace` for process `pid` to end by itself, then kills it and waits until it has ended. `is_it` says whether the process of
/// that number is the one that is meant, and is asked when the number can no more become another's.
///
/// # Errors
/// Why it stays.
pub fn end_process(pid: u32, is_it: impl FnOnce() -> bool, grace: std::time::Duration) -> Result<(), String> {
    pidfd::end(pid, is_it, grace)
}

fn remove(path: &Path) -> Result<(), String> {
    let gone = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_once_and_free_again_after() {
        let dir = tempfile::tempdir().unwrap();
        let first = Claim::take(dir.path(), "a").unwrap();
        assert!(matches!(Claim::take(dir.path(), "a"), Err(RunscError::NameTaken(_))));
        assert!(sweep(dir.path()).unwrap().is_empty(), "a live sandbox is not swept");
        let other = Claim::take(dir.path(), "a-b").unwrap();
        assert_ne!(first.id(), other.id());
        drop(first);
        drop(Claim::take(dir.path(), "a").unwrap());
        drop(other);
        assert_eq!(fs::read_dir(sandboxes(dir.path())).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_supervisor_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(dir.path(), "a").unwrap();
        let path = claim.bundle().path().to_owned();
        drop(claim);
        fs::create_dir_all(path.join("root/x")).unwrap();
        fs::write(path.join("config.json"), "{}").unwrap();
        fs::create_dir(sandboxes(dir.path()).join("not-ours")).unwrap();
        assert_eq!(sweep(dir.path()).unwrap().len(), 1);
        assert!(!path.exists());
        assert!(sandboxes(dir.path()).join("not-ours").exists());
    }

    #[test]
    fn names_are_read_back_from_ids() {
        assert_eq!(name_of("lattice-a-b-1f.2a"), Some("a-b"));
        assert_eq!(name_of("other"), None);
    }
}
