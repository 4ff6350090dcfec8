//! Writes the enforcer's verdicts to the audit file, on a thread of its own outside the agent's namespace.

use std::{
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lattice_audit::{AuditError, AuditFile, Class, Timestamp};
use lattice_ebpf::{Enforcer, Events, Flow};
use nix::{
    poll::PollTimeout,
    time::{ClockId, clock_gettime},
};

use crate::{Failure, Kind, bell::Bell, failure::chain, generations::Generations};

/// How often the thread asks for what the ring could not take, in milliseconds. Verdicts wake it at once.
const POLL_MS: u16 = 200;

/// The running recorder. [`Recorder::finish`] writes what the ring still holds and ends it; so does dropping it.
pub(crate) struct Recorder {
    stop: Bell,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Recorder {
    /// Starts it. The events of `enforcer` must not be taken.
    pub(crate) fn start(
        enforcer: Arc<Mutex<Enforcer>>,
        generations: Generations,
        path: &Path,
        agent: &str,
    ) -> Result<Self, Failure> {
        let file = AuditFile::open(path, agent, Class::Kernel).map_err(|error| {
            Failure::new(Kind::Input, format!("{}; choose another --audit-file", chain(&error)))
        })?;
        let fail = |error: lattice_ebpf::EbpfError| Failure::new(Kind::Kernel, chain(&error));
        let events = lock(&enforcer).events().map_err(fail)?;
        let writer =
            Writer { events, enforcer, generations, file, failing: false, untold: 0, asked: Instant::now() };
        let stop = Bell::new().map_err(|error| Failure::new(Kind::Internal, error))?;
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("recorder".into())
            .spawn(move || writer.run(&stopped))
            .map_err(|error| Failure::new(Kind::Internal, error))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// Says what is not on record.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        self.stop.ring();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread
            .join()
            .unwrap_or_else(|_| Err("the recorder panicked: later verdicts are not on record".into()))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

struct Writer {
    events: Events,
    enforcer: Arc<Mutex<Enforcer>>,
    generations: Generations,
    file: AuditFile,
    failing: bool,
    /// How many verdicts that the ring could not take are accounted for.
    untold: u64,
    asked: Instant,
}

impl Writer {
    fn run(mut self, stop: &Bell) -> Result<(), String> {
        let mut last = false;
        loop {
            let more = self.drain() == Events::BATCH;
            if last && !more {
                break;
            }
            if self.asked.elapsed() >= Duration::from_millis(POLL_MS.into()) {
                self.account();
            }
            if more {
                continue;
            }
            last = stop.wait(self.events.as_fd(), PollTimeout::from(POLL_MS)).unwrap_or_else(|error| {
                tracing::error!(%error, "cannot wait for verdicts");
                thread::sleep(Duration::from_millis(POLL_MS.into()));
                false
            });
        }
        self.account();
        self.file.sync().map_err(|error| chain(&error))?;
        match self.file.lost() {
            0 => Ok(()),
            lost => {
                Err(format!("{lost} flow records could not be written: is the disk of --audit-file full?"))
            }
        }
    }

    fn drain(&mut self) -> usize {
        let Self { events, generations, file, failing, .. } = self;
        let boot = boot_time();
        events.drain(&mut |flow| told(failing, file.append(&record(&flow, generations, boot))))
    }

    /// Writes down how many verdicts were enforced but not told, since last time.
    fn account(&mut self) {
        self.asked = Instant::now();
        let total = match lock(&self.enforcer).lost() {
            Ok(total) => total,
            Err(error) => return tracing::error!(error = %chain(&error), "cannot count lost verdicts"),
        };
        let lost = total.saturating_sub(self.untold);
        self.untold = total;
        if lost > 0 {
            told(&mut self.failing, self.file.gap(lost, "verdicts came faster than they could be recorded"));
        }
    }
}

/// One message per outage; the file itself counts what was lost as a gap record.
fn told(failing: &mut bool, result: Result<u64, AuditError>) {
    match result {
        Ok(_) => *failing = false,
        Err(error) if !*failing => {
            *failing = true;
            tracing::error!(error = %chain(&error), "cannot write flow records; they are counted as a gap");
        }
        Err(_) => {}
    }
}

fn lock(enforcer: &Mutex<Enforcer>) -> std::sync::MutexGuard<'_, Enforcer> {
    enforcer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The moment at which the clock of the kernel's events was zero.
fn boot_time() -> Timestamp {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    Timestamp::now().checked_sub(uptime).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn record(flow: &Flow, generations: &Generations, boot: Timestamp) -> lattice_audit::Flow {
    lattice_audit::Flow {
        timestamp: boot.checked_add(Duration::from_nanos(flow.at_ns)).unwrap_or(boot),
        src: flow.src,
        dst: flow.dst,
        proto: flow.proto,
        direction: flow.direction,
        action: flow.action,
        reason: flow.reason,
        rule: flow.rule,
        rule_text: generations.rule_text(flow.generation, flow.rule),
        generation: flow.generation,
        bytes: flow.bytes.into(),
    }
}
