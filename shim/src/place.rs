//! Where a pod's files are.
//!
//! ```text
//! <state>/shim/<containerd namespace>/<pod id>/      0700, removed with the pod
//!     pod.json        what is needed to clean up after a killed shim
//!     runsc/          runsc's --root
//!     network/        phase one's: resolv.conf
//!     <container id>/ bundle for runsc: config.json, log.json, init.pid, process files of execs
//! ```

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How often the directory of a namespace may go while one for a pod is made in it.
const RACES: usize = 100;

/// The directory of one pod.
#[derive(Debug, Clone)]
pub struct PodPlace {
    dir: PathBuf,
    id: String,
}

/// What another process must know to undo what a killed shim did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The shim.
    pub pid: u32,
    /// Its start time in clock ticks (`/proc/<pid>/stat`, field 22), so that a later process of that pid is not taken for it.
    pub started: u64,
    /// runsc.
    pub runsc: PathBuf,
    /// The `shim.toml` that was read, if one was.
    pub config: Option<PathBuf>,
    /// The name under which phase one claimed its state, if it ran.
    pub peer: Option<String>,
    /// Directories of cgroups to remove, once nothing runs in them.
    pub cgroups: Vec<PathBuf>,
    /// The cgroup of version 2 in which runsc was started, so that its calls are policed, if it is none of runsc's own.
    #[serde(default)]
    pub fence: Option<PathBuf>,
}

impl Record {
    /// Whether groups are on record, there or not.
    pub fn has_groups(&self) -> bool {
        !self.cgroups.is_empty() || self.fence.is_some()
    }

    /// The groups on record that are there.
    pub fn groups(&self) -> Vec<PathBuf> {
        self.cgroups.iter().chain(&self.fence).filter(|group| group.exists()).cloned().collect()
    }
}

impl PodPlace {
    /// The place of pod `id`; nothing is made.
    ///
    /// # Errors
    /// [`Error::Invalid`] for ids that would lead out of the directory.
    pub fn new(state: &Path, namespace: &str, id: &str) -> Result<Self> {
        check_id(namespace)?;
        check_id(id)?;
        Ok(Self { dir: state.join("shim").join(namespace).join(id), id: id.to_owned() })
    }

    /// Makes it, 0700.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn create(&self) -> Result<()> {
        // Another pod's shim may be removing the directory above, which was empty.
        for _ in 0..RACES {
            match make_private(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => break,
            }
        }
        for dir in [&self.dir, &self.runsc_root(), &self.network()] {
            make_private(dir).map_err(Error::io(format!("create {}", dir.display())))?;
        }
        Ok(())
    }

    /// The pod's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// runsc's `--root`.
    pub fn runsc_root(&self) -> PathBuf {
        self.dir.join("runsc")
    }

    /// Phase one's files.
    pub fn network(&self) -> PathBuf {
        self.dir.join("network")
    }

    /// The bundle that runsc is given for a container. Nothing is made.
    ///
    /// # Errors
    /// [`Error::Invalid`] for ids that would lead out of the directory, or into a file of ours.
    pub fn bundle(&self, container: &str) -> Result<PathBuf> {
        check_id(container)?;
        if ["pod.json", "runsc", "network"].contains(&container) {
            return Err(Error::Invalid(format!("a container cannot have the id {container:?}")));
        }
        Ok(self.dir.join(container))
    }

    /// [`PodPlace::bundle`], made.
    ///
    /// # Errors
    /// Likewise, and when the file system refuses.
    pub fn create_bundle(&self, container: &str) -> Result<PathBuf> {
        let dir = self.bundle(container)?;
        make_private(&dir).map_err(Error::io(format!("create {}", dir.display())))?;
        Ok(dir)
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, record: &Record) -> Result<()> {
        let (path, temporary) = (self.dir.join("pod.json"), self.dir.join(".pod.json"));
        let written = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&temporary, text))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(Error::io(format!("write {}", path.display())))
    }

    /// The record, if there is one that can be read.
    pub fn read(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.dir.join("pod.json")).ok()?).ok()
    }

    /// Removes everything, and what is empty above it.
    ///
    /// # Errors
    /// Names what stays.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {}", self.dir.display()))(error));
            }
            _ => {}
        }
        for above in self.dir.ancestors().skip(1).take(2) {
            // Other pods' are in it.
            if fs::remove_dir(above).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// containerd's identifiers: what is a file name of ours must be nothing else.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check_id(id: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_good = (1..=128).contains(&id.len()) && id.bytes().all(fits) && !id.starts_with(['.', '-']);
    if is_good { Ok(()) } else { Err(Error::Invalid(format!("{id:?} is no identifier of containerd's"))) }
}

fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_inside() {
        let root = Path::new("/run/lattice");
        for bad in ["", ".", "..", "a/b", "../a", "a\0", ".hidden", "-flag", &"a".repeat(129)] {
            assert!(PodPlace::new(root, "k8s.io", bad).is_err(), "{bad:?}");
            assert!(PodPlace::new(root, bad, "a").is_err(), "{bad:?}");
        }
        let pod = PodPlace::new(root, "k8s.io", "a").unwrap();
        assert!(pod.bundle("runsc").is_err());
        assert_eq!(pod.bundle("b").unwrap(), Path::new("/run/lattice/shim/k8s.io/a/b"));
    }

    #[test]
    fn a_record_is_read_back() {
        let root = tempfile::tempdir().unwrap();
        let pod = PodPlace::new(root.path(), "default", "a").unwrap();
        assert_eq!(pod.read(), None);
        pod.create().unwrap();
        let record = Record { pid: 7, peer: Some("default-a".into()), ..Record::default() };
        pod.write(&record).unwrap();
        assert_eq!(pod.read(), Some(record));
        pod.remove().unwrap();
        pod.remove().unwrap();
        assert!(!pod.dir().exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nor what is empty above it");
    }

    #[test]
    fn pods_of_one_namespace_come_and_go_at_once() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                let pod = PodPlace::new(root.path(), "default", name).unwrap();
                scope.spawn(move || {
                    for _ in 0..300 {
                        pod.create().unwrap();
                        assert!(pod.network().is_dir());
                        pod.remove().unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
