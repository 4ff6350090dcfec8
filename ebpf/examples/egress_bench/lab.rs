//! An agent and its peer, each in a network namespace that the kernel destroys with this process, and the policy between them.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    Result,
    filter::{Filter, Kind},
};

pub(crate) const AGENT: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
/// All of 10.99.0.0/16 is the peer, and allowed.
pub(crate) const ALLOWED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Routed to the peer, and not allowed by any policy.
pub(crate) const DENIED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Where the peer takes datagrams of new flows.
pub(crate) const FLOWS_PORT: u16 = 9003;

/// What is mounted here goes with this process, however it ends.
const SCRATCH: &str = "/tmp";

/// Hides [`SCRATCH`] from here on, for this process alone.
pub(crate) fn hide_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|e| format!("cannot make a mount namespace ({e}): run it as root"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), SCRATCH, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

pub(crate) fn scratch(name: &str) -> PathBuf {
    Path::new(SCRATCH).join(name)
}

pub(crate) struct Lab {
    pub(crate) kind: Kind,
    pub(crate) rules: usize,
    pub(crate) agent: Netns,
    pub(crate) peer: Netns,
    pub(crate) listener: TcpListener,
    filter: Filter,
    /// Its buffer is full soon; what matters is that nobody answers "port unreachable".
    _flows: UdpSocket,
}

impl Lab {
    pub(crate) fn new(kind: Kind, rules: usize) -> Result<Self> {
        let (agent, peer) = (Netns::new()?, Netns::new()?);
        let other = format!("/proc/{}/fd/{}", std::process::id(), peer.0.as_raw_fd());
        agent.ip(&format!("link add link0 type veth peer name link0 netns {other}"))?;
        for (netns, address) in [(&agent, AGENT), (&peer, PEER)] {
            netns.ip(&format!("addr add {address}/24 dev link0"))?;
            netns.ip("link set lo up")?;
            netns.ip("link set link0 up")?;
            // Otherwise the kernel's own "port unreachable" comes once a second, and the baseline of a refusal is no answer.
            netns.run(|| fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0"))?;
        }
        agent.ip(&format!("route add default via {PEER}"))?;
        peer.ip("route add local 10.99.0.0/16 dev lo")?;
        let listener = peer.run(|| TcpListener::bind((ALLOWED, 0)))?;
        let flows = peer.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, FLOWS_PORT)))?;
        let filter = Filter::new(kind, rules, &agent)?;
        let lab = Self { kind, rules, agent, peer, listener, filter, _flows: flows };
        // The neighbours find each other now, not within a measure.
        crate::measure::udp_stream_for(&lab, true, Duration::from_millis(5))?;
        Ok(lab)
    }

    /// Puts the policy in force anew, from its text, and says how long that took. `None` without a policy.
    pub(crate) fn switch(&mut self) -> Result<Option<Duration>> {
        self.filter.switch(&self.agent)
    }

    /// How many packets have arrived at the peer.
    pub(crate) fn arrived(&self) -> Result<u64> {
        let table = self.peer.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let link =
            table.lines().find_map(|line| line.trim().strip_prefix("link0:")).ok_or("link0 is gone")?;
        Ok(link.split_whitespace().nth(1).ok_or("no packet counter")?.parse()?)
    }
}

pub(crate) struct Netns(OwnedFd);

impl Netns {
    fn new() -> Result<Self> {
        let open = || -> std::io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        };
        Ok(Self(thread::spawn(open).join().map_err(|_| "the thread panicked")??))
    }

    /// Runs `work` in a thread of its own that is in here. Sockets that it opens stay here.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).expect("a namespace of ours can be entered");
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().expect("does not panic"))
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        self.command("ip", arguments.split_whitespace(), "").map(|_| ())
    }

    /// Runs a program in here, with `input` as its standard input.
    pub(crate) fn command<'a>(
        &self,
        program: &str,
        arguments: impl Iterator<Item = &'a str>,
        input: &str,
    ) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Not the host's lock file, which would stay.
        command.env("XTABLES_LOCKFILE", scratch("xtables.lock"));
        let shown = format!("{command:?}");
        let work = || -> std::io::Result<_> {
            let mut child = command.spawn()?;
            // One that ends early has said why on its standard error.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
            child.wait_with_output()
        };
        let done = self.run(work).map_err(|e| format!("{program}: {e}"))?;
        if !done.status.success() {
            return Err(format!("{shown}: {}", String::from_utf8_lossy(&done.stderr).trim()).into());
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}
