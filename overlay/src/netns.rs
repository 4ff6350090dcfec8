//! Network namespaces (`network_namespaces(7)`), held by descriptor.
//!
//! A namespace made here has no name and no mount: the kernel destroys it with the last process and descriptor that
//! uses it, so a killed supervisor leaves none behind.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::stat::{fstat, stat},
};

/// An open network namespace.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// A new, empty namespace with its loopback down.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`.
    pub fn create() -> io::Result<Self> {
        scratch_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })?
    }

    /// The namespace at `path`: `/run/netns/<name>`, `/proc/<pid>/ns/net` or [`Netns::path`].
    ///
    /// # Errors
    /// When the path cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    /// A path by which other processes of this host reach the namespace, valid as long as `self` is open.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Runs `work` on a thread of its own inside the namespace. The thread then ends: no thread of a runtime's pool is
    /// ever left in a foreign namespace. Sockets and TUN descriptors opened by `work` stay in the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered (`EPERM` without `CAP_SYS_ADMIN`). The caller's own needs not be entered, and takes no right.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        scratch_thread(|| {
            self.enter()?;
            Ok(work())
        })?
    }

    /// Moves the calling thread into the namespace, for good: for threads that end there.
    ///
    /// # Errors
    /// As [`Netns::run`].
    pub(crate) fn enter(&self) -> io::Result<()> {
        if !self.is_here() {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)?;
        }
        Ok(())
    }

    /// Whether the calling thread is in it. False when that cannot be told.
    fn is_here(&self) -> bool {
        let of = |stat: nix::Result<nix::sys::stat::FileStat>| stat.map(|stat| (stat.st_dev, stat.st_ino));
        match (of(fstat(&self.0)), of(stat("/proc/thread-self/ns/net"))) {
            (Ok(this), Ok(here)) => this == here,
            _ => false,
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn scratch_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("a thread inside a network namespace panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_inside_and_the_caller_stays_outside() {
        let inode = |path: &Path| std::fs::read_link(path).unwrap();
        let here = inode(Path::new("/proc/thread-self/ns/net"));
        let Ok(netns) = Netns::create() else { panic!("needs CAP_SYS_ADMIN: run the tests as root") };
        let inside = netns.run(|| inode(Path::new("/proc/thread-self/ns/net"))).unwrap();
        assert_ne!(inside, here);
        assert_eq!(inode(Path::new("/proc/thread-self/ns/net")), here);
        assert!(netns.path().exists());
    }

    /// In a thread that has given up root's rights.
    #[test]
    fn the_own_namespace_takes_no_right_and_another_does() {
        let (own, other) = (Netns::current().unwrap(), Netns::create().unwrap());
        let without_rights = || {
            crate::userns::confine::drop_privileges().unwrap();
            (own.run(|| ()), other.run(|| ()))
        };
        let (in_own, in_other) = thread::scope(|scope| scope.spawn(without_rights).join().unwrap());
        in_own.unwrap();
        assert_eq!(in_other.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
