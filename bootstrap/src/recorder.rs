//! Writes the enforcer's verdicts to the audit file, on a thread of its own outside the agent's namespace.

use std::{
    os::fd::AsFd as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lattice_audit::{AuditFile, Class, Timestamp};
use lattice_ebpf::{Events, Flow};
use lattice_policy::Policy;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};

use crate::{Failure, Kind, failure::chain};

/// How soon the thread notices that it shall end, in milliseconds. Verdicts wake it at once.
const POLL_MS: u16 = 200;

/// The running recorder; dropping it writes what the ring still holds and ends it.
pub(crate) struct Recorder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    pub(crate) fn start(events: Events, policy: Policy, path: &Path, agent: &str) -> Result<Self, Failure> {
        let file = AuditFile::open(path, agent, Class::Kernel).map_err(|error| {
            Failure::new(Kind::Input, format!("{}; choose another --audit-file", chain(&error)))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("recorder".into())
            .spawn(move || Writer { events, policy, file, failing: false }.run(&stopped))
            .map_err(|error| Failure::new(Kind::Internal, error))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    events: Events,
    policy: Policy,
    file: AuditFile,
    failing: bool,
}

impl Writer {
    fn run(mut self, stop: &AtomicBool) {
        loop {
            let last = stop.load(Ordering::Relaxed);
            self.drain();
            if last {
                break;
            }
            let mut ready = [PollFd::new(self.events.as_fd(), PollFlags::POLLIN)];
            if let Err(error) = poll(&mut ready, PollTimeout::from(POLL_MS))
                && error != nix::errno::Errno::EINTR
            {
                tracing::error!(%error, "cannot wait for verdicts");
                thread::sleep(Duration::from_millis(POLL_MS.into()));
            }
        }
        let _ = self.file.sync();
    }

    fn drain(&mut self) {
        let Self { events, policy, file, failing } = self;
        let boot = boot_time();
        let mut write = |flow: Flow| {
            let result = file.append(&record(&flow, policy, boot));
            // One message per outage; the file itself counts what was lost as a gap record.
            match result {
                Ok(_) => *failing = false,
                Err(error) if !*failing => {
                    *failing = true;
                    tracing::error!(error = %chain(&error), "cannot write flow records; they are counted as a gap");
                }
                Err(_) => {}
            }
        };
        while events.drain(&mut write) == Events::BATCH {}
    }
}

/// The moment at which the clock of the kernel's events was zero.
fn boot_time() -> Timestamp {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    Timestamp::now().checked_sub(uptime).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn record(flow: &Flow, policy: &Policy, boot: Timestamp) -> lattice_audit::Flow {
    lattice_audit::Flow {
        timestamp: boot.checked_add(Duration::from_nanos(flow.at_ns)).unwrap_or(boot),
        src: flow.src,
        dst: flow.dst,
        proto: flow.proto,
        direction: flow.direction,
        action: flow.action,
        reason: flow.reason,
        rule: flow.rule,
        rule_text: policy.rule(flow.rule).map(|rule| rule.text.clone()),
        generation: flow.generation,
        bytes: flow.bytes.into(),
    }
}
