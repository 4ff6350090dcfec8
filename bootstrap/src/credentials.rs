//! The credentials file: 0600, replaced by rename, in the directory named by `LATTICE_CONFIG_DIR`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use lattice_wire::{Credentials, PeerName, credentials::VERSION};
use nix::{errno::Errno, fcntl::posix_fallocate};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{Failure, Kind, Role};

/// Where credentials are kept unless configured otherwise.
pub const DEFAULT_DIR: &str = "/etc/lattice";

/// More than any credentials file holds.
const MAX_FILE: u64 = 64 * 1024;

/// Some 2 KiB are written, half of them the JWT.
const RESERVED: libc::off_t = 8 * 1024;

/// The file in `dir` that a peer of this role uses.
pub fn path(dir: &Path, role: Role) -> PathBuf {
    dir.join(match role {
        Role::Sandbox => "sandbox-credentials.json",
        Role::Node => "node-credentials.json",
    })
}

/// Reads the credentials at `path`; none when there is no file.
///
/// # Errors
/// When the file is not ours, is readable by others, has an unknown version, or belongs to another name.
pub fn load(path: &Path, name: &PeerName) -> Result<Option<Credentials>, Failure> {
    let shown = path.display();
    let fail = |text: String| Failure::new(Kind::Credentials, text);
    let Some(text) = read_private(path)? else { return Ok(None) };
    let credentials: Credentials = serde_json::from_str(&text).map_err(|error| {
        fail(format!("credentials {shown} are damaged ({error}): delete the file to enrol anew with a token"))
    })?;
    if credentials.version != VERSION {
        return Err(fail(format!(
            "credentials {shown} have version {}, this lattice knows {VERSION}: use the lattice that wrote them, or delete the file to enrol anew",
            credentials.version
        )));
    }
    if credentials.name != *name {
        return Err(fail(format!(
            "credentials {shown} belong to {:?}, not {:?}: give each peer its own --config-dir (LATTICE_CONFIG_DIR), or delete the file",
            credentials.name.as_str(),
            name.as_str()
        )));
    }
    Ok(Some(credentials))
}

/// The text of a file that nobody else could have read; none when there is no file.
pub(crate) fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>, Failure> {
    let shown = path.display();
    let fail = |text: String| Failure::new(Kind::Credentials, text);
    // O_NONBLOCK: a FIFO in its place must not make us wait.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(format!("cannot read credentials {shown}: {error}"))),
    };
    let meta = file.metadata().map_err(|error| fail(format!("cannot read credentials {shown}: {error}")))?;
    if !meta.is_file() {
        return Err(fail(format!("credentials {shown} are not a regular file: move it away to enrol anew")));
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(fail(format!(
            "credentials {shown} may be read by others (owner {}, mode {:o}): chown it to this user and chmod 600, or delete it to enrol anew",
            meta.uid(),
            meta.mode() & 0o7777
        )));
    }
    let mut text = Zeroizing::new(String::new());
    (&mut file)
        .take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(|error| fail(format!("cannot read credentials {shown}: {error}")))?;
    Ok(Some(text))
}

/// Writes the credentials so that a reader sees the old file or the new one, never a part.
///
/// # Errors
/// When the directory cannot be made or written.
pub fn store(path: &Path, credentials: &Credentials) -> Result<(), Failure> {
    Slot::reserve(path)?.fill(credentials)
}

/// Disk space for a file of secrets, taken before a token is spent on what shall go into it.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    path: &'a Path,
    temporary: PathBuf,
    file: File,
}

impl<'a> Slot<'a> {
    /// Takes the space.
    ///
    /// # Errors
    /// When the directory cannot be made or written, or its disk is full.
    pub(crate) fn reserve(path: &'a Path) -> Result<Self, Failure> {
        let reserve = || -> io::Result<Self> {
            let dir = path.parent().unwrap_or(Path::new("."));
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            let temporary = path.with_extension("new");
            // Of a killed run. The name is claimed on this host, so nobody else is at it.
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            let slot = Self { path, temporary, file };
            match posix_fallocate(&slot.file, 0, RESERVED) {
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) | Ok(()) => Ok(slot),
                Err(error) => Err(error.into()),
            }
        };
        reserve().map_err(|error| not_written(path, &error))
    }

    /// Writes the secrets and puts the file in its place.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn fill(mut self, secrets: &impl Serialize) -> Result<(), Failure> {
        let mut fill = || -> io::Result<()> {
            let text = Zeroizing::new(serde_json::to_vec_pretty(secrets)?);
            self.file.write_all(&text)?;
            self.file.set_len(text.len() as u64)?;
            self.file.sync_all()?;
            fs::rename(&self.temporary, self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        fill().map_err(|error| not_written(self.path, &error))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // Gone already when it was filled.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    let text = format!(
        "cannot write credentials {}: {error}; make room, or choose another --config-dir",
        path.display()
    );
    Failure::new(Kind::Credentials, text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use lattice_wire::{PeerId, WgPrivateKey, WorkspaceId};

    use super::*;

    fn sample() -> Credentials {
        Credentials {
            version: VERSION,
            name: "demo".parse().unwrap(),
            peer: PeerId::from_random([1; 10]),
            workspace: WorkspaceId::from_random([2; 10]),
            address: "10.42.0.2/32".parse().unwrap(),
            server_url: "http://localhost:8080".into(),
            nats_url: "nats://localhost:4222".into(),
            nats_tls: None,
            server_ca: None,
            nats_jwt: "jwt".into(),
            nats_seed: "SUseed".into(),
            wireguard_private_key: WgPrivateKey::from_random([3; 32]),
            listen_port: 51820,
        }
    }

    #[test]
    fn kept_privately_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/sandbox-credentials.json");
        let name = "demo".parse().unwrap();
        assert_eq!(load(&path, &name).unwrap(), None);
        store(&path, &sample()).unwrap();
        store(&path, &sample()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(load(&path, &name).unwrap(), Some(sample()));
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_reserved_place_is_given_back_and_what_a_killed_run_left_in_it_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.json");
        fs::write(path.with_extension("new"), "half").unwrap();
        drop(Slot::reserve(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        Slot::reserve(&path).unwrap().fill(&sample()).unwrap();
        assert_eq!(load(&path, &"demo".parse().unwrap()).unwrap(), Some(sample()));
    }

    #[test]
    fn refuses_what_others_may_read_what_is_damaged_and_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.json");
        store(&path, &sample()).unwrap();
        let other = load(&path, &"other".parse().unwrap()).unwrap_err();
        assert!(other.message.contains("belong to \"demo\""), "{other}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(&path, &"demo".parse().unwrap()).unwrap_err().message.contains("read by others"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "{").unwrap();
        assert!(load(&path, &"demo".parse().unwrap()).unwrap_err().message.contains("damaged"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", &path).unwrap();
        assert!(load(&path, &"demo".parse().unwrap()).is_err(), "a link is not followed");
    }
}
