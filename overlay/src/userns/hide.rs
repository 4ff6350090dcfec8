//! What a mount namespace shows: `mount(2)`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{UsernsError, failed};

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Where the files that are put over others come from. It is covered again before anybody looks.
const STAGE: &str = "/proc";

/// Terminals: those of the host are also the user's other shells.
const TERMINALS: &str = "/dev/pts";

/// Where a user's session may have groups of its own: who may write there ends or stops every process in them, whatever its namespace.
const GROUPS: &str = "/sys/fs/cgroup";

/// Changes what this mount namespace shows of the file system. It must be the calling process's own ([`super::enter`]).
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Directories that become empty, and files that do. What does not exist stays so.
    pub hidden: Vec<PathBuf>,
    /// What becomes of `/etc/resolv.conf`, if there is one: without, a program asks 127.0.0.1 anyhow (`resolv.conf(5)`).
    pub resolv_conf: String,
}

impl View {
    /// Puts it in place. `/proc` becomes that of the caller's PID namespace, `/dev/pts` an empty one, and there are no cgroups.
    ///
    /// # Errors
    /// What the kernel refused; the namespace must then not be used.
    pub fn show(&self) -> Result<(), UsernsError> {
        self.over_files()?;
        let groups = PathBuf::from(GROUPS);
        for dir in self.hidden.iter().chain([&groups]).filter(|path| path.is_dir()) {
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

    fn over_files(&self) -> Result<(), UsernsError> {
        mount(Some("files"), STAGE, Some("tmpfs"), HARMLESS, Some("size=64k,mode=755"))
            .map_err(failed("mount a tmpfs"))?;
        let empty = Path::new(STAGE).join("empty");
        let resolv_conf = Path::new(STAGE).join("resolv.conf");
        let put = || {
            fs::write(&empty, "").map_err(failed("write to a tmpfs"))?;
            fs::write(&resolv_conf, &self.resolv_conf).map_err(failed("write to a tmpfs"))?;
            for file in self.hidden.iter().filter(|path| path.is_file()) {
                over(&empty, file)?;
            }
            over(&resolv_conf, Path::new("/etc/resolv.conf"))
        };
        put().and(umount2(STAGE, MntFlags::MNT_DETACH).map_err(failed("unmount a tmpfs")))
    }
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
