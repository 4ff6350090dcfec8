//! What a running sandbox says of itself, on a socket that only root can reach: `lattice sandbox rules` and `lattice status`.
//!
//! Whoever connects is sent one [`Report`] as JSON, and the connection is closed.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use lattice_policy::{Action, Counter, Direction, Rule, RuleId, builtin};
use nix::poll::PollTimeout;
use serde::{Deserialize, Serialize};

use crate::{
    Failure, Kind,
    bell::Bell,
    enforce::{self, Shared},
    live::Live,
};

/// Name of the socket in the sandbox's state directory.
pub(crate) const SOCKET: &str = "control.sock";
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries where the kernel has no descriptor for us.
const BREATH: Duration = Duration::from_millis(50);
/// More than the report of the biggest policy.
const MAX_REPORT: u64 = 64 << 20;

/// The policy in force, and what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What enforces it, and its class.
    pub enforcement: String,
    /// As flow records name it.
    pub generation: u32,
    /// The layers of the control plane that the flags are narrowed by.
    pub layers: Vec<String>,
    /// Its rules, then the built-in ones that decided about something.
    pub rules: Vec<RuleReport>,
    /// What no rule named, and so was denied.
    pub default: RuleCount,
    /// Verdicts that were enforced but could not be put on record.
    pub lost: u64,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// As flow records name it.
    pub id: u32,
    /// Which way.
    pub direction: Direction,
    /// What happens.
    pub action: Action,
    /// Its text, and where it comes from.
    pub rule: String,
    /// What it decided about.
    #[serde(flatten)]
    pub count: RuleCount,
}

/// What was decided about, since the policy is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleCount {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

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
    let stream = at(dir, |path| UnixStream::connect(path))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream.take(MAX_REPORT).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// A socket's path may have 107 bytes, which a state directory can exceed: it is reached through its descriptor.
fn at<T>(dir: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = File::open(dir)?;
    work(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(SOCKET))
}

/// The policy of `live` with the counters of `enforcer`.
pub(crate) fn report(
    enforcement: &str,
    live: &Arc<Mutex<Live>>,
    enforcer: &Shared,
) -> Result<Report, Failure> {
    // First the policy, then its enforcer, as everywhere; both at once, so that the ids are those of this policy.
    let live = live.lock().unwrap_or_else(PoisonError::into_inner);
    let enforcer = enforce::lock(enforcer);
    // The resolver and every change of the policy wait meanwhile, so each rule is looked up, not searched for.
    let counters: HashMap<RuleId, Counter> = enforcer.counters()?.into_iter().collect();
    let count = |id: RuleId| {
        let Counter { packets, bytes } = counters.get(&id).copied().unwrap_or_default();
        RuleCount { packets, bytes }
    };
    let line = |rule: &Rule| RuleReport {
        id: rule.id.0,
        direction: rule.direction,
        action: rule.action,
        rule: rule.text.clone(),
        count: count(rule.id),
    };
    let policy = live.policy();
    let built_in = builtin::rules().iter().map(line).filter(|line| line.count.packets > 0);
    Ok(Report {
        enforcement: enforcement.to_owned(),
        generation: policy.generation,
        layers: live.layers().to_vec(),
        rules: policy.rules().iter().map(line).chain(built_in).collect(),
        default: count(RuleId::NONE),
        lost: enforcer.lost()?,
    })
}

/// What the running sandbox `name` says of itself.
///
/// # Errors
/// [`Kind::Input`] when no such sandbox runs on this host or it does not answer.
pub fn rules(root: &Path, name: &lattice_wire::PeerName) -> Result<Report, Failure> {
    ask(&crate::Role::Sandbox.dir(root, name)).map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("no sandbox {name:?} runs on this host; `lattice status` lists those that do")
            }
            io::ErrorKind::PermissionDenied => {
                format!("cannot ask the sandbox {name:?}: {error}; run as root")
            }
            _ => format!("the sandbox {name:?} does not answer: {error}"),
        };
        Failure::new(Kind::Input, text)
    })
}

#[cfg(test)]
mod tests {
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
            }],
            default: RuleCount::default(),
            lost: 0,
        }
    }

    #[test]
    fn it_answers_until_it_is_dropped_and_from_a_long_path() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("x".repeat(200));
        fs::create_dir(&dir).unwrap();
        let control = Control::start(&dir, || Ok(sample(7))).unwrap();
        let silent = at(&dir, |path| UnixStream::connect(path)).unwrap();
        assert_eq!(ask(&dir).unwrap(), sample(7), "whoever does not read holds nobody up");
        drop((silent, control));
        assert_eq!(ask(&dir).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let again = Control::start(&dir, || Ok(sample(8))).unwrap();
        assert_eq!(ask(&dir).unwrap().generation, 8, "a dead one's socket is in nobody's way");
        drop(again);
    }
}
