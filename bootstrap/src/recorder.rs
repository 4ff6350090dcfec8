//! Writes verdicts to the audit file, on a thread of its own outside the agent's namespace: the enforcer's, and those of
//! others in this process.

mod budget;

use std::{
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lattice_audit::{AuditError, AuditFile, Timestamp};
use lattice_ebpf::Events;
use lattice_policy::{Action, Flow};
use nix::poll::PollTimeout;

use crate::{
    Failure, Kind,
    bell::Bell,
    clock::since_boot,
    enforce::{self, Shared, Verdicts},
    failure::chain,
    generations::Generations,
};
use budget::Budget;

/// How soon after verdicts the thread asks for what the ring could not take, in milliseconds.
const POLL_MS: u16 = 200;
/// How often it asks while nothing happens, in milliseconds: verdicts wake it before.
const IDLE_MS: u16 = 10_000;

/// How many told verdicts may wait.
const TOLD: usize = 1024;

/// The running recorder. [`Recorder::finish`] writes what the ring still holds and ends it; so does dropping it.
pub(crate) struct Recorder {
    stop: Bell,
    teller: Teller,
    thread: Option<JoinHandle<Result<(), String>>>,
}

/// Puts verdicts on record that no enforcer reached. Never waits: what does not fit is counted.
#[derive(Clone)]
pub(crate) struct Teller {
    sender: SyncSender<lattice_audit::Flow>,
    lost: Arc<AtomicU64>,
    bell: Bell,
}

impl Teller {
    pub(crate) fn tell(&self, flow: lattice_audit::Flow) {
        if self.sender.try_send(flow).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.bell.ring();
    }

    /// Counts a verdict that nobody tells, so that a gap accounts for it.
    pub(crate) fn miss(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.bell.ring();
    }
}

impl Recorder {
    /// Starts it.
    pub(crate) fn start(
        enforcer: Shared,
        verdicts: Box<dyn Verdicts>,
        generations: Generations,
        file: AuditFile,
    ) -> Result<Self, Failure> {
        let (sender, told) = sync_channel(TOLD);
        let bell = || Bell::new().map_err(|error| Failure::new(Kind::Internal, error));
        let teller = Teller { sender, lost: Arc::default(), bell: bell()? };
        let now = Instant::now();
        let writer = Writer {
            verdicts,
            enforcer,
            told,
            bell: teller.bell.clone(),
            untold: teller.lost.clone(),
            generations,
            out: Out {
                file,
                failing: false,
                denied: Budget::denied(now),
                allowed: Budget::allowed(now),
                withheld: 0,
            },
            accounted: 0,
            asked: now,
        };
        let stop = bell()?;
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("recorder".into())
            .spawn(move || writer.run(&stopped))
            .map_err(|error| Failure::new(Kind::Internal, error))?;
        Ok(Self { stop, teller, thread: Some(thread) })
    }

    /// For verdicts of others.
    pub(crate) fn teller(&self) -> Teller {
        self.teller.clone()
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
    verdicts: Box<dyn Verdicts>,
    enforcer: Shared,
    told: Receiver<lattice_audit::Flow>,
    /// Rung when something was told.
    bell: Bell,
    /// Of those told, how many did not fit.
    untold: Arc<AtomicU64>,
    generations: Generations,
    out: Out,
    /// How many verdicts that could not be told are accounted for.
    accounted: u64,
    asked: Instant,
}

/// The file, and who may fill it.
struct Out {
    file: AuditFile,
    failing: bool,
    denied: Budget,
    allowed: Budget,
    /// Verdicts beyond the budgets that no gap accounts for yet.
    withheld: u64,
}

impl Writer {
    fn run(mut self, stop: &Bell) -> Result<(), String> {
        let (mut last, mut is_idle) = (false, false);
        loop {
            self.bell.silence();
            let more = self.drain();
            if last && !more {
                break;
            }
            if self.asked.elapsed() >= Duration::from_millis(POLL_MS.into()) {
                self.account();
            }
            if more {
                continue;
            }
            // A file that fails is tried again without another verdict.
            let pause = if is_idle && !self.out.failing { IDLE_MS } else { POLL_MS };
            let fds = [self.verdicts.as_fd(), self.bell.as_fd()];
            let (stops, any) = stop.wait_with(fds, PollTimeout::from(pause)).unwrap_or_else(|error| {
                tracing::error!(%error, "cannot wait for verdicts");
                thread::sleep(Duration::from_millis(POLL_MS.into()));
                (false, true)
            });
            (last, is_idle) = (stops, !any);
            if !last {
                // More may gather: each wake-up costs the agent more than a verdict.
                thread::sleep(Events::LINGER);
            }
        }
        self.account();
        self.out.file.sync().map_err(|error| chain(&error))?;
        match self.out.file.lost() {
            0 => Ok(()),
            lost => {
                Err(format!("{lost} flow records could not be written: is the disk of --audit-file full?"))
            }
        }
    }

    fn drain(&mut self) -> bool {
        let Self { verdicts, told, generations, out, .. } = self;
        let (boot, now) = (boot_time(), Instant::now());
        for flow in told.try_iter().take(TOLD) {
            out.write(&flow, now);
        }
        verdicts.drain(&mut |flow| out.write(&record(&flow, generations, boot), now))
    }

    /// Writes down how many verdicts were reached but are not on record, since last time.
    fn account(&mut self) {
        self.asked = Instant::now();
        let told = self.untold.load(Ordering::Relaxed);
        let total = match enforce::lock(&self.enforcer).lost() {
            Ok(total) => total.saturating_add(told),
            Err(error) => return tracing::error!(%error, "cannot count lost verdicts"),
        };
        let lost = total.saturating_sub(self.accounted);
        self.accounted = total;
        if lost > 0 {
            self.out.gap(lost, "verdicts came faster than they could be recorded");
        }
        let withheld = std::mem::take(&mut self.out.withheld);
        if withheld > 0 {
            self.out.gap(withheld, "the agent caused more verdicts than it may put on record");
        }
    }
}

impl Out {
    fn write(&mut self, flow: &lattice_audit::Flow, now: Instant) {
        let budget = match flow.action {
            Action::Allow => &mut self.allowed,
            Action::Deny => &mut self.denied,
        };
        if budget.take(now) {
            let written = self.file.append(flow);
            self.told(written);
        } else {
            self.withheld += 1;
        }
    }

    fn gap(&mut self, lost: u64, why: &str) {
        let written = self.file.gap(lost, why);
        self.told(written);
    }

    /// One message per outage; the file itself counts what was lost as a gap record.
    fn told(&mut self, result: Result<u64, AuditError>) {
        match result {
            Ok(_) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(error = %chain(&error), "cannot write flow records; they are counted as a gap");
            }
            Err(_) => {}
        }
    }
}

/// The moment at which the clock of the kernel's events was zero.
fn boot_time() -> Timestamp {
    Timestamp::now().checked_sub(since_boot()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn record(flow: &Flow, generations: &Generations, boot: Timestamp) -> lattice_audit::Flow {
    lattice_audit::Flow {
        timestamp: boot.checked_add(Duration::from_nanos(flow.at_ns)).unwrap_or(boot),
        src: flow.src,
        dst: flow.dst,
        proto: flow.proto,
        direction: flow.direction,
        action: flow.action,
        reason: generations.reason(flow.generation, flow.reason, flow.rule),
        rule: flow.rule,
        rule_text: generations.rule_text(flow.generation, flow.rule),
        generation: flow.generation,
        bytes: flow.bytes.into(),
        name: None,
    }
}
