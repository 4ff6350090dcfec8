//! A network namespace without a name.

use std::{
    fs::File,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::Command,
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
};

/// A namespace, which ends with the value.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// A new one, its loopback down.
    #[allow(clippy::new_without_default, reason = "it asks the kernel for one")]
    pub fn new() -> Self {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN: run the tests as root");
            File::open("/proc/thread-self/ns/net").unwrap().into()
        };
        Self(thread::spawn(open).join().unwrap())
    }

    /// Where programs find it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `work` in it, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Sends the first segment of a connection and does not wait for an answer.
    pub fn start_connecting(&self, to: SocketAddr) -> OwnedFd {
        self.run(|| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            assert_eq!(connect(socket.as_raw_fd(), &SockaddrStorage::from(to)), Err(Errno::EINPROGRESS));
            socket
        })
    }

    /// Runs ip(8) in it.
    pub fn ip(&self, arguments: &str) {
        self.command(&format!("ip {arguments}"));
    }

    /// What the command says. It must succeed.
    pub fn command(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        let done = self.run(|| command.args(words).output().unwrap());
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }
}
