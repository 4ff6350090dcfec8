//! What a running sandbox or node says of itself, on a socket that only root can reach: `lattice sandbox rules`, `lattice status` and
//! `lattice ping`.
//!
//! Whoever connects is sent one [`Report`] as JSON, and the connection is closed.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    poll::PollTimeout,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};

use crate::{Failure, Kind, Role, bell::Bell};
pub use lattice_proxy::Counters as ProxyReport;
pub(crate) use overlay::OverlaySources;
pub use overlay::{OverlayReport, PeerReport, RelayReport};
pub(crate) use report::Sources;
pub use report::{NameReport, Report, ResolverReport};
pub use rules::{RuleCount, RulePart, RuleReport};

mod overlay;
mod report;
mod rules;

/// Name of the socket in the sandbox's state directory.
pub(crate) const SOCKET: &str = "control.sock";
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries where the kernel has no descriptor for us.
const BREATH: Duration = Duration::from_millis(50);
/// More than the report of the biggest policy.
const MAX_REPORT: u64 = 64 << 20;

/// The running socket; dropping it ends it.
pub(crate) struct Control {
    stop: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Opens it in `dir`, which belongs to the sandbox.
    pub(crate) fn start(
        dir: &Path,
        report: impl Fn() -> Result<Report, Failure> + Send + 'static,
    ) -> io::Result<Self> {
        let listener = at(dir, |path| {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            UnixListener::bind(path)
        })?;
        listener.set_nonblocking(true)?;
        let stop = Bell::new()?;
        let stopped = stop.clone();
        let serve = move || {
            while matches!(stopped.wait(listener.as_fd(), PollTimeout::NONE), Ok(false)) {
                let Ok((stream, _)) = listener.accept() else {
                    // Without a descriptor for it, whoever connects keeps the socket readable.
                    thread::sleep(BREATH);
                    continue;
                };
                if let Err(error) = answer(stream, &report) {
                    tracing::debug!(%error, "could not answer on the control socket");
                }
            }
        };
        let thread = thread::Builder::new().name("control".into()).spawn(serve)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: UnixStream, report: impl Fn() -> Result<Report, Failure>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let report = report().map_err(io::Error::other)?;
    stream.write_all(&serde_json::to_vec(&report)?)
}

/// Asks the sandbox whose state directory is `dir`.
pub(crate) fn ask(dir: &Path) -> io::Result<Report> {
    let stream = at(dir, connected)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream.take(MAX_REPORT).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Never waits: a queue that is full belongs to a sandbox that has stopped to answer.
fn connected(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

/// A socket's path may have 107 bytes, which a state directory can exceed: it is reached through its descriptor.
fn at<T>(dir: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = File::open(dir)?;
    work(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(SOCKET))
}

/// What the running sandbox or node `name` says of itself.
///
/// # Errors
/// [`Kind::Input`] when no such one runs on this host or it does not answer.
pub fn report(root: &Path, role: Role, name: &lattice_wire::PeerName) -> Result<Report, Failure> {
    let what = match role {
        Role::Sandbox => "sandbox",
        Role::Node => "node",
    };
    ask(&role.dir(root, name)).map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("no {what} {name:?} runs on this host; `lattice status` lists those that do")
            }
            io::ErrorKind::PermissionDenied => {
                format!("cannot ask the {what} {name:?}: {error}; run as root")
            }
            io::ErrorKind::WouldBlock => {
                let seconds = PATIENCE.as_secs();
                format!("the {what} {name:?} does not answer within {seconds} s: is its supervisor stopped?")
            }
            _ => format!("the {what} {name:?} does not answer: {error}"),
        };
        Failure::new(Kind::Input, text)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lattice_policy::{Action, Direction};

    use super::*;

    fn sample(generation: u32) -> Report {
        Report {
            enforcement: "ebpf/tcx (kernel)".into(),
            generation,
            layers: vec!["policies".into()],
            rules: vec![RuleReport {
                id: 1,
                direction: Direction::Egress,
                action: Action::Allow,
                rule: "10.42.0.5/32:80".into(),
                count: RuleCount { packets: 3, bytes: 180 },
                parts: Vec::new(),
            }],
            default: RuleCount::default(),
            lost: 0,
            overlay: OverlayReport::default(),
            names: vec![NameReport {
                name: "api.example.com".into(),
                address: "198.51.100.7".parse().unwrap(),
                seconds: 60,
            }],
            resolver: ResolverReport {
                queries: 2,
                refused: BTreeMap::from([("type".into(), 1)]),
                ..Default::default()
            },
            proxy: None,
            heard_seconds: Some(3),
        }
    }

    #[test]
    fn it_answers_until_it_is_dropped_and_from_a_long_path() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("x".repeat(200));
        fs::create_dir(&dir).unwrap();
        let control = Control::start(&dir, || Ok(sample(7))).unwrap();
        let silent = at(&dir, connected).unwrap();
        assert_eq!(ask(&dir).unwrap(), sample(7), "whoever does not read holds nobody up");
        drop((silent, control));
        assert_eq!(ask(&dir).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let again = Control::start(&dir, || Ok(sample(8))).unwrap();
        assert_eq!(ask(&dir).unwrap().generation, 8, "a dead one's socket is in nobody's way");
        drop(again);
    }

    #[test]
    fn nobody_waits_for_one_that_has_stopped_to_answer() {
        let dir = tempfile::tempdir().unwrap();
        let _never_accepts = at(dir.path(), |path| UnixListener::bind(path)).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = at(dir.path(), connected) {
            waiting.push(stream);
        }
        assert_eq!(ask(dir.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock, "its queue is full");
        waiting.pop();
    }

    #[test]
    fn an_older_report_is_read() {
        let mut older = serde_json::to_value(sample(7)).unwrap();
        for field in ["names", "resolver"] {
            older.as_object_mut().unwrap().remove(field).unwrap();
        }
        let report: Report = serde_json::from_value(older).unwrap();
        assert_eq!((report.names.len(), report.resolver.queries), (0, 0));
    }
}
