//! Where credentials and what runs are kept: the system's directories where this user may use them, else his own.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use lattice_bootstrap::{Failure, Kind, Listed, Role, credentials, state};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, faccessat, geteuid},
};

use crate::args::Global;

/// The directory for the credentials of a peer of this role.
pub(crate) fn config(global: &Global, role: Role) -> Result<PathBuf, Failure> {
    let dir = Host::this().config(global.config_dir.as_deref(), role)?;
    tracing::info!(dir = %dir.display(), "credentials are kept in this directory");
    Ok(dir)
}

/// All that may hold keys and records of this user's peers: every default place, and the records of those that run.
pub(crate) fn secrets(global: &Global) -> Vec<PathBuf> {
    let host = Host::this();
    let running = list(global).unwrap_or_default().into_iter();
    let records = running.filter_map(|found| found.peer.status?.audit_file);
    [host.config.clone()]
        .into_iter()
        .chain(host.own_configs())
        .chain(host.listed(None))
        .chain(records)
        .collect()
}

/// The directory in which a peer that starts is listed.
pub(crate) fn state(global: &Global) -> Result<PathBuf, Failure> {
    let dir = Host::this().state(global.state_dir.as_deref())?;
    tracing::info!(dir = %dir.display(), "what runs is listed in this directory");
    Ok(dir)
}

/// A peer on this host, and the state directory that lists it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) root: PathBuf,
    pub(crate) peer: Listed,
}

/// All peers that this user may see, his own first. A directory that belongs to others is left out, unless it was asked for.
pub(crate) fn list(global: &Global) -> Result<Vec<Found>, Failure> {
    let asked = global.state_dir.as_deref();
    let mut all = Vec::new();
    for root in Host::this().listed(asked) {
        match state::list(&root) {
            Ok(peers) => all.extend(peers.into_iter().map(|peer| Found { root: root.clone(), peer })),
            Err(failure) if asked.is_some() => return Err(failure),
            Err(failure) => tracing::info!(error = failure.message, "not shown"),
        }
    }
    Ok(all)
}

/// The state directory that lists this peer. Where none does, the one whose answer says so: the system's.
pub(crate) fn root_of(global: &Global, role: Role, name: &str) -> Result<PathBuf, Failure> {
    let found =
        list(global)?.into_iter().find(|found| found.peer.role == role && found.peer.name.as_str() == name);
    Ok(match (found, &global.state_dir) {
        (Some(found), _) => found.root,
        (None, Some(asked)) => asked.clone(),
        (None, None) => state::DEFAULT_ROOT.into(),
    })
}

/// What the choice depends on.
struct Host<'a> {
    config: PathBuf,
    state: PathBuf,
    temporary: PathBuf,
    uid: u32,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Host<'static> {
    fn this() -> Self {
        Self {
            config: credentials::DEFAULT_DIR.into(),
            state: state::DEFAULT_ROOT.into(),
            temporary: "/tmp".into(),
            uid: geteuid().as_raw(),
            variable: &|name| std::env::var_os(name),
        }
    }
}

impl Host<'_> {
    fn config(&self, asked: Option<&Path>, role: Role) -> Result<PathBuf, Failure> {
        if let Some(dir) = asked {
            return Ok(dir.to_owned());
        }
        let ours = fs::symlink_metadata(credentials::path(&self.config, role))
            .is_ok_and(|meta| meta.is_file() && meta.uid() == self.uid);
        if ours || writable(&self.config) {
            return Ok(self.config.clone());
        }
        self.own_configs().next().ok_or_else(|| {
            let text = format!(
                "there is no directory for credentials: this user may not write {} and HOME is not set; give --config-dir (LATTICE_CONFIG_DIR)",
                self.config.display()
            );
            Failure::new(Kind::Usage, text)
        })
    }

    /// The user's own, the first choice first.
    fn own_configs(&self) -> impl Iterator<Item = PathBuf> {
        let home = self.path("HOME").map(|home| home.join(".local/state"));
        self.path("XDG_STATE_HOME").into_iter().chain(home).map(|dir| dir.join("lattice"))
    }

    fn state(&self, asked: Option<&Path>) -> Result<PathBuf, Failure> {
        if let Some(dir) = asked {
            return Ok(dir.to_owned());
        }
        if writable(&self.state) {
            return Ok(self.state.clone());
        }
        if let Some(dir) =
            self.path("XDG_RUNTIME_DIR").map(|dir| dir.join("lattice")).filter(|dir| writable(dir))
        {
            return Ok(dir);
        }
        let dir = self.shared();
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let text =
                    format!("cannot make the state directory {}: {error}; give --state-dir", dir.display());
                return Err(Failure::new(Kind::Privilege, text));
            }
            _ => {}
        }
        if self.is_private(&dir) {
            return Ok(dir);
        }
        let text = format!(
            "the state directory {} is not a directory of this user alone: somebody else may have put it there; remove it, or give --state-dir",
            dir.display()
        );
        Err(Failure::new(Kind::Privilege, text))
    }

    /// Where this user's peers may be listed, and the system's.
    fn listed(&self, asked: Option<&Path>) -> Vec<PathBuf> {
        if let Some(dir) = asked {
            return vec![dir.to_owned()];
        }
        let own = self.path("XDG_RUNTIME_DIR").map(|dir| dir.join("lattice"));
        let own = own.into_iter().chain(Some(self.shared()).filter(|dir| self.is_private(dir)));
        own.chain([self.state.clone()]).collect()
    }

    /// In a directory where everybody may make one of this name first.
    fn shared(&self) -> PathBuf {
        self.temporary.join(format!("lattice-{}", self.uid))
    }

    fn is_private(&self, dir: &Path) -> bool {
        fs::symlink_metadata(dir)
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == self.uid && meta.mode() & 0o077 == 0)
    }

    /// A directory that a variable names. A relative one does not count (XDG Base Directory Specification).
    fn path(&self, variable: &str) -> Option<PathBuf> {
        (self.variable)(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}

/// Whether files can be made in `dir`, which may have to be made first.
fn writable(dir: &Path) -> bool {
    let there = dir.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
    there.is_some_and(|path| {
        path.is_dir()
            && faccessat(AT_FDCWD, path, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok()
    })
}

#[cfg(test)]
mod tests;
