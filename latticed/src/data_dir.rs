//! The data directory: one latticed at a time, nobody else can read it, and what is written there is never half there.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
    unistd::geteuid,
};

/// Longest secret file that is read.
const MAX_SECRET: u64 = 4096;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The kernel refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Others could read what is in there.
    #[error(
        "{0} (mode {mode:04o}, owner {owner}) is open to others: make it private with `chown {euid} {0} && chmod {wanted:o} {0}`",
        path.display()
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Who we are.
        euid: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// Another process holds the lock.
    #[error("{} is in use by another latticed: stop it, or give another --data-dir", .0.display())]
    Locked(PathBuf),
    /// A secret does not parse.
    #[error("{} does not hold {expected}: restore it from a backup; without it enrolled peers cannot connect", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
}

/// An open data directory. The lock, if any, is held until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Option<Flock<File>>,
}

impl DataDir {
    /// Opens `path`, making it when missing.
    ///
    /// # Errors
    /// When it is not a private directory of ours, or is in use.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let path = private(path)?;
        let lock_path = path.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: Some(lock) }),
            Err((_, Errno::EWOULDBLOCK)) => Err(DataDirError::Locked(path)),
            Err((_, errno)) => Err(io_error("lock", &lock_path)(errno.into())),
        }
    }

    /// Opens `path` beside the latticed that may use it.
    ///
    /// # Errors
    /// When it is not a private directory of ours.
    pub fn beside(path: &Path) -> Result<Self, DataDirError> {
        Ok(Self { path: private(path)?, _lock: None })
    }

    /// The path of `name` in here.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// An empty private directory `name`, whatever was there before.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn fresh_dir(&self, name: &str) -> Result<PathBuf, DataDirError> {
        let path = self.join(name);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("empty", &path)(e)),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path).map_err(io_error("create", &path))?;
        Ok(path)
    }

    /// Writes `name` with mode 0600. A reader sees the old content or the new, and a crash leaves one of them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), DataDirError> {
        let (path, temporary) = (self.join(name), self.join(&format!(".{name}.new")));
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&temporary)?;
            // A file left by a crash keeps its mode through O_CREAT.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| {
            // Whatever came to be of it takes room, which is perhaps what there was none of.
            let _ = fs::remove_file(&temporary);
            io_error("write", &path)(error)
        })
    }

    /// Removes `name` if it is there.
    pub fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.join(name));
    }

    /// The secret kept in `name`; the first time, what `generate` returns. The flag says whether it is new.
    ///
    /// # Errors
    /// When it cannot be read or written, or others could have read it.
    pub fn secret(
        &self,
        name: &str,
        generate: impl FnOnce() -> String,
    ) -> Result<(String, bool), DataDirError> {
        match self.kept_secret(name) {
            Err(DataDirError::Io { action: "open", source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                let secret = generate();
                self.write(name, secret.as_bytes())?;
                Ok((secret, true))
            }
            kept => kept.map(|secret| (secret, false)),
        }
    }

    /// The secret kept in `name`.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or others could have read it.
    pub fn kept_secret(&self, name: &str) -> Result<String, DataDirError> {
        let path = self.join(name);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(io_error("open", &path))?;
        check_private(&path, &file.metadata().map_err(io_error("inspect", &path))?, 0o600)?;
        let mut text = String::new();
        file.take(MAX_SECRET).read_to_string(&mut text).map_err(io_error("read", &path))?;
        Ok(text.trim().to_owned())
    }
}

/// The directory at `path`, made when missing, once it is seen that nobody else can read it.
fn private(path: &Path) -> Result<PathBuf, DataDirError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))?;
    let path = path.canonicalize().map_err(io_error("resolve", path))?;
    close_when_empty(&path).map_err(io_error("make private", &path))?;
    check_private(&path, &fs::metadata(&path).map_err(io_error("inspect", &path))?, 0o700)?;
    Ok(path)
}

/// Package managers, containers and `mkdir` make directories that everybody can read. As long as nothing is in there, that
/// is safe to set right; later it could be somebody else's directory.
fn close_when_empty(path: &Path) -> io::Result<()> {
    if path.metadata()?.uid() == geteuid().as_raw() && path.read_dir()?.next().is_none() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn check_private(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), DataDirError> {
    let (mode, owner, euid) = (metadata.mode() & 0o7777, metadata.uid(), geteuid().as_raw());
    if mode & 0o077 == 0 && owner == euid {
        return Ok(());
    }
    Err(DataDirError::Open { path: path.to_owned(), mode, owner, euid, wanted })
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn makes_a_private_directory_and_holds_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/data");
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked(_))));
        drop(dir);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn refuses_what_others_can_read() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o750)).unwrap();
        fs::write(parent.path().join("somebody's"), "").unwrap();
        let error = DataDir::open(parent.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");

        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let dir = DataDir::open(parent.path()).unwrap();
        dir.write("key", b"x").unwrap();
        fs::set_permissions(dir.join("key"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(dir.secret("key", String::new), Err(DataDirError::Open { .. })));
    }

    #[test]
    fn closes_an_empty_directory() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let _dir = DataDir::open(parent.path()).unwrap();
        assert_eq!(mode(parent.path()), 0o700);
    }

    #[test]
    fn a_secret_is_made_once() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::open(parent.path()).unwrap();
        assert_eq!(dir.secret("key", || "one".into()).unwrap(), ("one".into(), true));
        assert_eq!(dir.secret("key", || "two".into()).unwrap(), ("one".into(), false));
        assert_eq!(mode(&dir.join("key")), 0o600);
    }

    #[test]
    fn a_secret_is_not_read_through_a_link() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::open(parent.path()).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.join("key")).unwrap();
        assert!(matches!(dir.secret("key", String::new), Err(DataDirError::Io { .. })));
    }
}
