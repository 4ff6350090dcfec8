//! `/run/lattice`: what runs on this host, and what a killed one left behind.
//!
//! Each running peer owns one directory, held by a lock that the kernel releases when its process dies:
//!
//! ```text
//! /run/lattice/sandboxes/<name>/lock        flock, held for life
//!                              /state.json  for `lattice status`
//!                              /bpf/        this sandbox's own bpf file system: its pinned policy
//!                              /agent/      phase two's: bundle and runsc state
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use lattice_wire::PeerName;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{Failure, Kind};

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
    /// WireGuard backend: `kernel` or `userspace`.
    pub backend: String,
    /// What enforces the policy, and its class: `ebpf/tcx (kernel)`; `none` on a node.
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

/// One peer's claimed directory. Dropping it gives the name free; [`StateDir::remove`] also removes the directory.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    leftover: bool,
    _lock: Flock<File>,
}

impl StateDir {
    /// Claims `name` on this host.
    ///
    /// # Errors
    /// [`Kind::Taken`] when it runs already; [`Kind::Privilege`] when the directory cannot be made.
    pub fn claim(root: &Path, role: Role, name: &PeerName) -> Result<Self, Failure> {
        let path = root.join(role.folder()).join(name.as_str());
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
        // A dying owner may remove the directory between our open and our lock: then the lock is on a file that is
        // gone, and the claim starts over.
        for _ in 0..16 {
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(fail)?;
            let file = match lock_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(fail)?,
            };
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    let pid = read_status(&path)
                        .map_or_else(String::new, |status| format!(" (pid {})", status.pid));
                    let text = format!(
                        "{name:?} already runs on this host{pid}: choose another --name, or stop it first"
                    );
                    return Err(Failure::new(Kind::Taken, text));
                }
                Err((_, error)) => return Err(fail(error.into())),
            };
            if same_file(&lock, &path.join("lock")) {
                let leftover = path.join("state.json").exists()
                    || path.join("bpf").exists()
                    || path.join("agent").exists();
                return Ok(Self { path, leftover, _lock: lock });
            }
        }
        Err(Failure::new(Kind::Taken, format!("{name:?} is being stopped on this host: try again")))
    }

    /// Whether an earlier owner died without cleaning up.
    pub fn has_leftovers(&self) -> bool {
        self.leftover
    }

    /// The directory for this sandbox's bpf file system.
    pub fn bpf(&self) -> PathBuf {
        self.path.join("bpf")
    }

    /// The directory for phase two.
    pub fn agent(&self) -> PathBuf {
        self.path.join("agent")
    }

    /// Removes what phase one of a killed owner left: its pinned policy. Its agent must be gone before.
    ///
    /// # Errors
    /// When the bpf file system cannot be unmounted.
    pub fn clear(&self) -> Result<(), Failure> {
        lattice_ebpf::bpffs::unmount(&self.bpf())
            .map_err(|error| Failure::new(Kind::Kernel, crate::failure::chain(&error)))?;
        let _ = fs::remove_file(self.path.join("state.json"));
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

    /// Removes the directory, then gives the name free.
    pub fn remove(self) {
        let _ = self.clear();
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Every peer on this host, with whether its process lives.
pub fn list(root: &Path) -> Vec<(Role, PeerName, Option<Status>, bool)> {
    let mut all = Vec::new();
    for role in [Role::Sandbox, Role::Node] {
        let Ok(entries) = fs::read_dir(root.join(role.folder())) else { continue };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<PeerName>().ok()) else {
                continue;
            };
            let alive = lock_file(&entry.path()).is_ok_and(|file| {
                matches!(
                    Flock::lock(file, FlockArg::LockSharedNonblock),
                    Err((_, nix::errno::Errno::EWOULDBLOCK))
                )
            });
            all.push((role, name, read_status(&entry.path()), alive));
        }
    }
    all.sort_by(|a, b| (a.0.folder(), &a.1).cmp(&(b.0.folder(), &b.1)));
    all
}

fn lock_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(dir.join("lock"))
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
        let alive = |role| list(root.path()).into_iter().any(|(of, _, _, alive)| of == role && alive);
        assert!(alive(Role::Sandbox));
        assert!(!alive(Role::Node), "it was dropped at once");
        first.remove();
        StateDir::claim(root.path(), Role::Sandbox, &name).unwrap();
    }

    #[test]
    fn a_dead_owner_leaves_leftovers() {
        let root = tempfile::tempdir().unwrap();
        let name = "a".parse().unwrap();
        let first = StateDir::claim(root.path(), Role::Sandbox, &name).unwrap();
        fs::write(first.path.join("state.json"), "{").unwrap();
        drop(first);
        assert!(!list(root.path())[0].3, "dead");
        assert!(StateDir::claim(root.path(), Role::Sandbox, &name).unwrap().has_leftovers());
    }
}
