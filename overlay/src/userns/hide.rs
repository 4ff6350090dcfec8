//! What a mount namespace shows, and what of it can be written: `mount(2)`.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{
    UsernsError,
    attributes::{self, Tree},
    failed,
    mounts::Mounts,
};

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Where the files that are put over others come from. It is covered again before anybody looks.
const STAGE: &str = "/proc";

/// Terminals: those of the host are also the user's other shells.
const TERMINALS: &str = "/dev/pts";

/// Where a user's session may have groups of its own: who may write there ends or stops every process in them, whatever its namespace.
const GROUPS: &str = "/sys/fs/cgroup";

/// Where programs leave what they need for a while, and find what others have left. Some of that is run from there.
const PASSING: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// A directory as it was found, by a path that leads elsewhere once somebody has put a link in its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its path, without a link.
    pub path: PathBuf,
    /// Its device and inode (`stat(2)`).
    pub id: (u64, u64),
}

impl Found {
    /// Opens it, so that its path and its identity are those of one directory.
    ///
    /// # Errors
    /// The kernel's, also when it is no directory.
    pub fn at(dir: &Path) -> io::Result<Self> {
        let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY;
        let open = File::options().read(true).custom_flags(flags.bits()).open(dir)?;
        let path = fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd()))?;
        let found = open.metadata()?;
        Ok(Self { path, id: (found.dev(), found.ino()) })
    }

    /// A copy of what is mounted there, if it still is the same directory.
    fn copy(&self) -> io::Result<Tree> {
        let copied = Tree::copy(&self.path)?;
        // What was copied is looked at, not what the path leads to now.
        if copied.id()? != self.id {
            return Err(io::Error::other("another directory was put in its place"));
        }
        Ok(copied)
    }
}

/// Changes what this mount namespace shows of the file system. It must be the calling process's own ([`super::enter`]).
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Directories that become empty, and files that do, wherever they are mounted. What does not exist yet is not hidden, nor is a file any more once
    /// another one is put in its place outside (`rename(2)`): what was mounted over it goes with the old one.
    pub hidden: Vec<PathBuf>,
    /// The only directories that can be written, beside an empty `/tmp`, `/var/tmp` and `/dev/shm` of the namespace's own, which go with it. With
    /// `/` among them everything is as it was.
    pub writable: Vec<Found>,
    /// A directory that is seen where it is, also below `/tmp`.
    pub kept: PathBuf,
    /// What becomes of `/etc/resolv.conf`, if there is one: without, a program asks 127.0.0.1 anyhow (`resolv.conf(5)`).
    pub resolv_conf: String,
}

impl View {
    /// Whether this kernel can show any.
    ///
    /// # Errors
    /// When it is older than Linux 5.12.
    pub fn is_possible() -> Result<(), UsernsError> {
        attributes::are_there().map_err(failed("make mounts read-only, which takes Linux 5.12"))
    }

    /// Puts it in place. `/proc` becomes that of the caller's PID namespace, `/dev/pts` an empty one, and there are no cgroups.
    ///
    /// # Errors
    /// What the kernel refused; the namespace must then not be used.
    pub fn show(&self) -> Result<(), UsernsError> {
        let mounts = Mounts::read().map_err(failed("list what is mounted"))?;
        let hidden: Vec<_> = self.hidden.iter().flat_map(|path| mounts.places_of(path)).collect();
        self.read_only()?;
        self.over_files(&hidden)?;
        let groups = PathBuf::from(GROUPS);
        for dir in hidden.iter().chain([&groups]).filter(|path| path.is_dir()) {
            mount(
                Some("hidden"),
                dir,
                Some("tmpfs"),
                HARMLESS | MsFlags::MS_RDONLY,
                Some("size=4k,mode=555"),
            )
            .map_err(failed(format!("hide the directory {}", dir.display())))?;
        }
        if Path::new(TERMINALS).is_dir() {
            let options = Some("newinstance,ptmxmode=0666,mode=620");
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
            mount(Some("devpts"), TERMINALS, Some("devpts"), flags, options)
                .map_err(failed("mount terminals of one's own"))?;
        }
        proc_of_own()
    }

    fn read_only(&self) -> Result<(), UsernsError> {
        let mut writable = self.writable.clone();
        // What is above comes first, or it would cover what is below.
        writable.sort();
        if writable.first().is_some_and(|first| first.path == Path::new("/")) {
            return Ok(());
        }
        // As they are now: only what can be written today can be then.
        let tree = |dir: &Found| {
            let copied = dir.copy().map_err(failed(format!("keep {} writable", dir.path.display())))?;
            Ok((copied, dir.path.clone()))
        };
        let mut trees = writable.iter().map(tree).collect::<Result<Vec<_>, UsernsError>>()?;
        let is_passing = PASSING.iter().any(|dir| self.kept.starts_with(dir) && self.kept != Path::new(dir));
        if is_passing && !writable.iter().any(|dir| self.kept.starts_with(&dir.path)) {
            let kept = || {
                let tree = Tree::copy(&self.kept)?;
                tree.make_read_only()?;
                io::Result::Ok(tree)
            };
            let tree = kept().map_err(failed(format!("make {} read-only", self.kept.display())))?;
            trees.insert(0, (tree, self.kept.clone()));
        }
        attributes::make_read_only(Path::new("/")).map_err(failed("make the file system read-only"))?;
        for dir in PASSING.map(Path::new) {
            let is_named = writable.iter().any(|named| dir.starts_with(&named.path));
            if is_named || !fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir()) {
                continue;
            }
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("tmp"), dir, Some("tmpfs"), flags, Some("mode=1777"))
                .map_err(failed(format!("mount {} of one's own", dir.display())))?;
        }
        for (tree, dir) in trees {
            let attach = || {
                // In a /tmp that is empty now.
                DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
                tree.attach(&dir)
            };
            attach().map_err(failed(format!("keep {} writable", dir.display())))?;
        }
        Ok(())
    }

    fn over_files(&self, hidden: &[PathBuf]) -> Result<(), UsernsError> {
        mount(Some("files"), STAGE, Some("tmpfs"), HARMLESS, Some("size=64k,mode=755"))
            .map_err(failed("mount a tmpfs"))?;
        let empty = Path::new(STAGE).join("empty");
        let resolv_conf = Path::new(STAGE).join("resolv.conf");
        let put = || {
            fs::write(&empty, "").map_err(failed("write to a tmpfs"))?;
            fs::write(&resolv_conf, &self.resolv_conf).map_err(failed("write to a tmpfs"))?;
            for file in hidden.iter().filter(|path| path.is_file()) {
                over(&empty, file)?;
            }
            over(&resolv_conf, Path::new("/etc/resolv.conf"))
        };
        put().and(umount2(STAGE, MntFlags::MNT_DETACH).map_err(failed("unmount a tmpfs")))
    }
}

/// Does `work` while `dir` is an empty directory of this mount namespace's own. What `work` leaves there is gone afterwards, and also when this
/// process is killed meanwhile.
///
/// # Errors
/// What the kernel refused.
pub fn with_empty<T>(dir: &Path, work: impl FnOnce() -> T) -> Result<T, UsernsError> {
    mount(Some("passing"), dir, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=700"))
        .map_err(failed(format!("mount an empty {}", dir.display())))?;
    let done = work();
    umount2(dir, MntFlags::MNT_DETACH).map_err(failed(format!("unmount {}", dir.display())))?;
    Ok(done)
}

/// Mounts the proc file system of the calling process's PID namespace.
///
/// # Errors
/// `EPERM` where parts of the host's `/proc` are covered, as in most containers: the new one would show them.
pub fn proc_of_own() -> Result<(), UsernsError> {
    mount(Some("proc"), "/proc", Some("proc"), HARMLESS, None::<&str>)
        .map_err(failed("mount a proc file system of one's own"))
}

/// Shows `source` in the place of `target`, unchangeable.
fn over(source: &Path, target: &Path) -> Result<(), UsernsError> {
    let none = None::<&str>;
    let action = || format!("put a file in the place of {}", target.display());
    match mount(Some(source), target, none, MsFlags::MS_BIND, none).map_err(io::Error::from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        done => done.map_err(failed(action()))?,
    }
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | HARMLESS;
    mount(none, target, none, read_only, none).map_err(failed(action()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Needs root, as a copy of mounts does.
    #[test]
    fn a_directory_in_whose_place_is_another_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (work, home, moved) =
            (dir.path().join("work"), dir.path().join("home"), dir.path().join("moved"));
        fs::create_dir(&work).unwrap();
        fs::create_dir(&home).unwrap();
        let found = Found::at(&work).unwrap();
        assert_eq!(found.path, fs::canonicalize(&work).unwrap());
        assert!(Found::at(Path::new("/etc/passwd")).is_err());
        found.copy().unwrap();
        fs::rename(&work, &moved).unwrap();
        symlink(&home, &work).unwrap();
        assert!(found.copy().is_err());
        fs::remove_file(&work).unwrap();
        fs::rename(&moved, &work).unwrap();
        found.copy().unwrap();
    }
}
