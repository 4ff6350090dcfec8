//! `/run/lattice`: what runs on this host, and what a killed one left behind.
//!
//! Each running peer owns one directory, held by a lock that the kernel releases when its process dies:
//!
//! ```text
//! /run/lattice/sandboxes/<name>/lock        flock, held for life
//!                              /state.json  for `lattice status`
//!                              /control.sock  answers `lattice sandbox rules`
//!                              /bpf/        this sandbox's own bpf file system: its pinned policy
//!                              /agent/      phase two's: bundle and runsc state
//!                              /uplink      it has a way out of the overlay, with rules in the underlay
//!                              /pod         its namespace is a pod's, and may outlive it with wg0
//!             uplink.lock                    held while such rules change
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use lattice_wire::PeerName;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

use crate::{Failure, Kind, control::SOCKET};

/// The state directory unless configured otherwise.
pub const DEFAULT_ROOT: &str = "/run/lattice";

/// What a peer is on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An agent's sandbox.
    Sandbox,
    /// The host itself (`lattice up`).
    Node,
}

impl Role {
    fn folder(self) -> &'static str {
        match self {
            Self::Sandbox => "sandboxes",
            Self::Node => "nodes",
        }
    }

    pub(crate) fn dir(self, root: &Path, name: &PeerName) -> PathBuf {
        root.join(self.folder()).join(name.as_str())
    }
}

/// What `lattice status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the peer.
    pub name: PeerName,
    /// Sandbox or node.
    pub role: Role,
    /// The supervising process.
    pub pid: u32,
    /// Overlay address.
    pub address: String,
    /// Its IPv6 address in it.
    #[serde(default)]
    pub address6: String,
    /// WireGuard backend: `kernel` or `userspace`.
    pub backend: String,
    /// What enforces the policy, and its class: `ebpf/tcx+calls (kernel)`; `none` on a node.
    pub enforcement: String,
    /// UDP port of the WireGuard socket.
    pub listen_port: u16,
    /// Where flow records go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_file: Option<PathBuf>,
    /// The agent's network namespace, for `nsenter --net=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
}

/// What may lie in a peer's directory beside its lock.
const CONTENT: [&str; 6] = ["state.json", SOCKET, "bpf", "agent", "uplink", "pod"];
/// Somebody who looks at a lock, or a removal that is about to end, holds it for some milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(20);

/// One peer's claimed directory. Dropping it gives the name free, and removes the directory when there is nothing in
/// it; [`StateDir::remove`] removes the content too.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    leftover: bool,
    // Taken out of the directory before the directory goes: see `Drop`.
    _lock: Flock<File>,
}

impl StateDir {
    /// Claims `name` on this host.
    ///
    /// # Errors
    /// [`Kind::Taken`] when it runs already; [`Kind::Privilege`] when the directory cannot be made.
    pub fn claim(root: &Path, role: Role, name: &PeerName) -> Result<Self, Failure> {
        let path = role.dir(root, name);
        let fail = |error: io::Error| {
            let kind = if error.kind() == io::ErrorKind::PermissionDenied {
                Kind::Privilege
            } else {
                Kind::Internal
            };
            let text = format!(
                "cannot use the state directory {}: {error}; run as root or give --state-dir",
                path.display()
            );
            Failure::new(kind, text)
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(fail)?;
            private(root)?;
            // A dying owner may remove the directory between our steps: then the claim starts over.
            let file = match open_lock(&path, true) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(fail)?,
            };
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if same_file(&lock, &path.join(LOCK)) => {
                    let leftover = CONTENT.iter().any(|name| path.join(name).exists());
                    return Ok(Self { path, leftover, _lock: lock });
                }
                Ok(_) => {}
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() < deadline => thread::sleep(RETRY),
                Err((_, Errno::EWOULDBLOCK)) => {
                    let pid = read_status(&path)
                        .map_or_else(String::new, |status| format!(" (pid {})", status.pid));
                    let text = format!(
                        "{name:?} already runs on this host{pid}: choose another --name, or stop it first"
                    );
                    return Err(Failure::new(Kind::Taken, text));
                }
                Err((_, error)) => return Err(fail(error.into())),
            }
        }
    }

    /// Whether an earlier owner died without cleaning up.
    pub fn has_leftovers(&self) -> bool {
        self.leftover
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory for this sandbox's bpf file system.
    pub fn bpf(&self) -> PathBuf {
        self.path.join("bpf")
    }

    /// The directory for phase two.
    pub fn agent(&self) -> PathBuf {
        self.path.join("agent")
    }

    /// The file that says that there is, or may be, an uplink.
    pub(crate) fn uplink(&self) -> PathBuf {
        self.path.join("uplink")
    }

    /// The file that says what was made in a pod's namespace.
    pub(crate) fn pod(&self) -> PathBuf {
        self.path.join("pod")
    }

    /// The lock of all uplinks under this root.
    pub(crate) fn uplink_lock(&self) -> PathBuf {
        self.path.ancestors().nth(2).unwrap_or(&self.path).join("uplink.lock")
    }

    /// A number that no other directory of this host has, the same as long as this one is there.
    pub(crate) fn number(&self) -> io::Result<[u8; 16]> {
        let meta = fs::metadata(&self.path)?;
        Ok((u128::from(meta.dev()) << 64 | u128::from(meta.ino())).to_be_bytes())
    }

    /// Removes what phase one of a killed owner left: its uplink, what it made in a pod's namespace, and its pinned policy. Its agent must be gone before.
    ///
    /// # Errors
    /// When the uplink cannot be removed, or the bpf file system not be unmounted.
    pub fn clear(&self) -> Result<(), Failure> {
        crate::uplink::clear(self)?;
        crate::pod::clear(self)?;
        lattice_ebpf::bpffs::unmount(&self.bpf())
            .map_err(|error| Failure::new(Kind::Kernel, crate::failure::chain(&error)))?;
        for file in ["state.json", SOCKET] {
            let _ = fs::remove_file(self.path.join(file));
        }
        Ok(())
    }

    /// Publishes what `lattice status` shows.
    ///
    /// # Errors
    /// When the file cannot be written (a full disk).
    pub fn publish(&self, status: &Status) -> Result<(), Failure> {
        let write = || -> io::Result<()> {
            let temporary = self.path.join(".state.json");
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(status)?)?;
            fs::rename(&temporary, self.path.join("state.json"))
        };
        write().map_err(|error| {
            Failure::new(
                Kind::Internal,
                format!("cannot write {}: {error}", self.path.join("state.json").display()),
            )
        })
    }

    /// Removes the content and the directory, then gives the name free.
    ///
    /// # Errors
    /// Says what could not be removed; `lattice doctor --fix` can try again.
    pub fn remove(self) -> Result<(), Failure> {
        self.clear()?;
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed = match entry.file_type() {
                _ if entry.file_name() == LOCK => continue,
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            removed.map_err(|error| {
                Failure::new(Kind::Internal, format!("cannot remove {}: {error}", path.display()))
            })?;
        }
        Ok(())
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if !CONTENT.iter().any(|name| self.path.join(name).exists()) {
            // One by one: whoever claims the name after the first of them has a new lock, and then the directory stays.
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// One peer on this host.
#[derive(Debug)]
pub struct Listed {
    /// Sandbox or node.
    pub role: Role,
    /// Its name.
    pub name: PeerName,
    /// What it published; none while it starts.
    pub status: Option<Status>,
    /// Whether its process lives.
    pub alive: bool,
}

/// Every peer on this host, in the order of roles and names. Changes nothing.
///
/// # Errors
/// [`Kind::Privilege`] when the state directory may not be read.
pub fn list(root: &Path) -> Result<Vec<Listed>, Failure> {
    let mut all = Vec::new();
    for role in [Role::Sandbox, Role::Node] {
        let folder = root.join(role.folder());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let text = format!("cannot read {}: {error}; run as root", folder.display());
                return Err(Failure::new(Kind::Privilege, text));
            }
        };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<PeerName>().ok()) else {
                continue;
            };
            let alive = open_lock(&entry.path(), false).is_ok_and(|file| {
                matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
            });
            all.push(Listed { role, name, status: read_status(&entry.path()), alive });
        }
    }
    all.sort_by(|a, b| (a.role.folder(), &a.name).cmp(&(b.role.folder(), &b.name)));
    Ok(all)
}

const LOCK: &str = "lock";

fn open_lock(dir: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW);
    if create {
        options.write(true).create(true).truncate(false).mode(0o600);
    }
    options.open(dir.join(LOCK))
}

/// Refuses a state directory in which others could put a bundle of theirs in the place of ours.
fn private(root: &Path) -> Result<(), Failure> {
    let owned = fs::metadata(root).is_ok_and(|meta| {
        meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o022 == 0
    });
    if owned {
        return Ok(());
    }
    let text = format!(
        "the state directory {} belongs to another user or can be written by others: chown and chmod 700 it, or give --state-dir",
        root.display()
    );
    Err(Failure::new(Kind::Privilege, text))
}

fn same_file(lock: &File, path: &Path) -> bool {
    match (lock.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn read_status(dir: &Path) -> Option<Status> {
    serde_json::from_slice(&fs::read(dir.join("state.json")).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let name = "a".parse().unwrap();
        let first = StateDir::claim(root.path(), Role::Sandbox, &name).unwrap();
        assert!(!first.has_leftovers());
        let second = StateDir::claim(root.path(), Role::Sandbox, &name).unwrap_err();
        assert_eq!(second.kind, Kind::Taken);
        StateDir::claim(root.path(), Role::Node, &name).unwrap();
        let alive = |role| list(root.path()).unwrap().iter().any(|peer| peer.role == role && peer.alive);
        assert!(alive(Role::Sandbox));
        assert!(!alive(Role::Node), "it was dropped at once");
        first.remove().unwrap();
        StateDir::claim(root.path(), Role::Sandbox, &name).unwrap();
    }

    #[test]
    fn a_dead_owner_leaves_leftovers() {
        let root = tempfile::tempdir().unwrap();
        let name = "a".parse().unwrap();
        let first = StateDir::claim(root.path(), Role::Sandbox, &name).unwrap();
        fs::write(first.path.join("state.json"), "{").unwrap();
        drop(first);
        assert!(!list(root.path()).unwrap()[0].alive);
        assert!(StateDir::claim(root.path(), Role::Sandbox, &name).unwrap().has_leftovers());
    }

    #[test]
    fn an_unused_claim_leaves_nothing_and_looking_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let name = "a".parse().unwrap();
        drop(StateDir::claim(root.path(), Role::Sandbox, &name).unwrap());
        let folder = root.path().join("sandboxes");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::create_dir(folder.join("a")).unwrap();
        assert!(!list(root.path()).unwrap()[0].alive);
        assert_eq!(fs::read_dir(folder.join("a")).unwrap().count(), 0, "no lock is made by looking");
    }

    #[test]
    fn a_glance_at_the_lock_does_not_refuse_a_claim() {
        let root = tempfile::tempdir().unwrap();
        let name = "a".parse().unwrap();
        let first = StateDir::claim(root.path(), Role::Sandbox, &name).unwrap();
        let claims = thread::scope(|scope| {
            let second = scope.spawn(|| StateDir::claim(root.path(), Role::Sandbox, &name).map(drop));
            thread::sleep(2 * RETRY);
            drop(first);
            second.join().unwrap()
        });
        assert!(claims.is_ok(), "{claims:?}");
    }

    #[test]
    fn a_directory_of_others_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = StateDir::claim(root.path(), Role::Sandbox, &"a".parse().unwrap()).unwrap_err();
        assert_eq!(refused.kind, Kind::Privilege);
    }
}
