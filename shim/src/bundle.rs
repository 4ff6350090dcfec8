//! containerd's bundle of a container, the working directory of `start` and `delete`: what we read and leave there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    annotations::{self, Annotations},
    error::{Error, Result},
    reply::Options,
};

/// Kubernetes limits a pod's annotations to 256 KiB.
const MAX_SPEC: u64 = 16 << 20;
/// Where `shim.toml` is found again by `delete`, which containerd gives no options.
const CONFIG: &str = "shim.toml";
const ADDRESS: &str = "address";

/// The directory.
#[derive(Debug)]
pub struct Bundle(PathBuf);

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: Option<Annotations>,
}

impl Bundle {
    /// At `dir`, an absolute path.
    pub fn at(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Where containerd's snapshot is mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// The id of the pod to which container `own` belongs. Without a spec it is a pod of its own.
    ///
    /// # Errors
    /// When there is a spec, and it cannot be read or contradicts itself.
    pub fn pod_id(&self, own: &str) -> Result<String> {
        let path = self.0.join("config.json");
        let read = || Error::io(format!("read {}", path.display()));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(own.to_owned()),
            Err(error) => return Err(read()(error)),
        };
        let mut text = Vec::new();
        file.take(MAX_SPEC).read_to_end(&mut text).map_err(read())?;
        let spec: Annotated = serde_json::from_slice(&text)
            .map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))?;
        let annotations = spec.annotations.unwrap_or_default();
        annotations::check(&annotations)?;
        Ok(annotations::sandbox_id(&annotations, own).to_owned())
    }

    /// Keeps the `shim.toml` that the options name or hold.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a relative path, which would mean another file to each of our processes.
    pub fn keep_config(&self, options: &Options) -> Result<()> {
        let kept = self.0.join(CONFIG);
        let fail = || Error::io(format!("write {}", kept.display()));
        if let Some(path) = &options.config_path {
            if !path.is_absolute() {
                let reason = format!("the option config_path is {}: it must be absolute", path.display());
                return Err(Error::Invalid(reason));
            }
            remove(&kept).and_then(|()| symlink(path, &kept)).map_err(fail())
        } else if let Some(body) = &options.config_body {
            write(&kept, body).map_err(fail())
        } else {
            Ok(())
        }
    }

    /// The `shim.toml` that was kept.
    pub fn config(&self) -> Option<PathBuf> {
        let kept = self.0.join(CONFIG);
        let found = fs::symlink_metadata(&kept).ok()?;
        Some(if found.is_symlink() { fs::read_link(&kept).ok()? } else { kept })
    }

    /// Leaves our address, by which containerd 1.x finds us again.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn keep_address(&self, address: &str) -> Result<()> {
        let path = self.0.join(ADDRESS);
        write(&path, address.as_bytes()).map_err(Error::io(format!("write {}", path.display())))
    }

    /// The path of the socket that [`Bundle::keep_address`] left.
    pub fn socket(&self) -> Option<PathBuf> {
        let address = fs::read_to_string(self.0.join(ADDRESS)).ok()?;
        address.trim().strip_prefix("unix://").map(PathBuf::from)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whole or not at all, readable by root only.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    remove(temporary.as_ref())?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?.write_all(text)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> (tempfile::TempDir, Bundle) {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::at(dir.path().to_owned());
        (dir, bundle)
    }

    #[test]
    fn the_pod_is_named_by_the_spec() {
        let (dir, bundle) = bundle();
        let spec = |text: &str| fs::write(dir.path().join("config.json"), text).unwrap();
        assert_eq!(bundle.pod_id("a").unwrap(), "a");
        spec(r#"{"ociVersion":"1.1.0","annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#);
        assert_eq!(bundle.pod_id("a").unwrap(), "pod");
        for without in ["{}", r#"{"annotations":null}"#] {
            spec(without);
            assert_eq!(bundle.pod_id("a").unwrap(), "a");
        }
        spec(
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"victim","io.kubernetes.cri-o.SandboxID":"pod"}}"#,
        );
        assert!(bundle.pod_id("a").unwrap_err().to_string().contains("sandbox-id"));
        spec("{");
        assert!(bundle.pod_id("a").unwrap_err().to_string().contains("config.json"));
    }

    #[test]
    fn the_config_is_found_again() {
        let (dir, bundle) = bundle();
        bundle.keep_config(&Options::default()).unwrap();
        assert_eq!(bundle.config(), None);
        let body = Options { config_body: Some(b"log = \"debug\"".to_vec()), ..Options::default() };
        bundle.keep_config(&body).unwrap();
        assert_eq!(bundle.config(), Some(dir.path().join("shim.toml")));
        let path = Options { config_path: Some("/etc/x.toml".into()), ..body };
        bundle.keep_config(&path).unwrap();
        assert_eq!(bundle.config(), Some("/etc/x.toml".into()));
        let relative = Options { config_path: Some("x.toml".into()), ..path };
        assert!(bundle.keep_config(&relative).is_err());
    }
}
