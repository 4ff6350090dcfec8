//! `--ready-file`: there while the sandbox can be used, whole or not at all.

use std::{
    fs::{self, Permissions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use lattice_bootstrap::{Failure, Kind, Status};
use serde_json::json;
use tempfile::Builder;

/// The file. Dropping it removes it.
pub(super) struct ReadyFile(Option<PathBuf>);

impl ReadyFile {
    /// Nothing is at `path` from here on until [`ReadyFile::write`]: what a killed run left there would tell of what is not.
    pub(super) fn absent(path: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(path) = &path {
            removed(path).map_err(|error| failed(path, "remove", &error))?;
        }
        Ok(Self(path))
    }

    /// Says that all is ready. Everybody may read it: there is no secret in it.
    pub(super) fn write(&self, status: &Status, proxy: Option<SocketAddr>) -> Result<(), Failure> {
        let Some(path) = &self.0 else { return Ok(()) };
        let told = json!({ "name": status.name, "pid": status.pid, "address": status.address, "address6": status.address6, "proxy": proxy });
        let write = || -> io::Result<()> {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
            writeln!(file, "{told}")?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|error| failed(path, "write", &error))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_deref().map(removed) {
            tracing::warn!(%error, "cannot remove the ready file");
        }
    }
}

fn removed(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> Failure {
    let text = format!(
        "--ready-file {}: cannot {what} it: {error}; name a file in a directory of this user",
        path.display()
    );
    Failure::new(Kind::Usage, text)
}

#[cfg(test)]
mod tests {
    use lattice_bootstrap::Role;

    use super::*;

    #[test]
    fn it_is_there_between_ready_and_the_end_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready");
        fs::write(&path, "of a killed run").unwrap();
        let file = ReadyFile::absent(Some(path.clone())).unwrap();
        assert!(!path.exists());
        let status = Status {
            name: "a".parse().unwrap(),
            role: Role::Sandbox,
            pid: 7,
            address: "10.42.0.2".into(),
            address6: "fd12:3456:789a::a2a:2".into(),
            backend: "userspace".into(),
            enforcement: "userspace (cooperative)".into(),
            listen_port: 51820,
            audit_file: None,
            netns: None,
        };
        file.write(&status, Some("127.0.0.1:1080".parse().unwrap())).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            told,
            json!({ "name": "a", "pid": 7, "address": "10.42.0.2", "address6": "fd12:3456:789a::a2a:2", "proxy": "127.0.0.1:1080" })
        );
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left, no temporary file either");
        assert!(
            ReadyFile::absent(Some(dir.path().to_owned())).is_err(),
            "a directory is nobody's ready file"
        );
        let nowhere = ReadyFile::absent(Some(dir.path().join("none/ready"))).unwrap();
        assert!(nowhere.write(&status, None).unwrap_err().message.contains("--ready-file"));
    }
}
