//! One run, from its first step to the command's exit code: what both classes share.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lattice_bootstrap::{Failure, Kind, Progress, Status, Stop};
use tokio::runtime::Handle;

use super::{channel::Start, helper::Helper, supervise};
use crate::{
    output::{self, Phases},
    runtime::Runtime,
    signals::Signals,
};

/// A run.
pub(super) struct Session {
    phases: Phases,
    signals: Signals,
    ready_within: Duration,
    runtime: Runtime,
}

impl Session {
    pub(super) fn begin(ready_within: Duration) -> Result<Self, Failure> {
        let phases = Phases::start();
        let runtime = Runtime::start()?;
        Ok(Self { phases, signals: Signals::take(runtime.handle())?, ready_within, runtime })
    }

    /// Runs phase one, which a signal stops, and the time that it may take.
    pub(super) fn start<T>(
        &mut self,
        phase_one: impl FnOnce(&Handle, &mut dyn Progress, &Stop) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (sender, stop) = Stop::new();
        let (late, within) = (Arc::new(AtomicBool::new(false)), self.ready_within);
        let mut asked = self.signals.stop().clone();
        let is_late = late.clone();
        let watch = self.runtime.handle().spawn(async move {
            tokio::select! {
                () = asked.wait() => {}
                () = tokio::time::sleep(within) => is_late.store(true, Ordering::Relaxed),
            }
            let _ = sender.send(true);
            // Whoever looks at the stop must still find it set.
            std::future::pending::<()>().await;
        });
        let started = phase_one(self.runtime.handle(), &mut self.phases, &stop);
        watch.abort();
        started.map_err(|failure| {
            if failure.kind == Kind::Interrupted && late.load(Ordering::Relaxed) {
                let text = format!(
                    "the sandbox was not ready within {} s; is the control plane reachable? --ready-timeout",
                    within.as_secs()
                );
                return Failure::new(Kind::Server, text);
            }
            failure
        })
    }

    pub(super) fn ready(&self, status: &Status) {
        let text = format!(
            "Sandbox {:?} ready, overlay IP={}, {}",
            status.name.as_str(),
            status.address,
            status.enforcement
        );
        self.phases.note("ready", &text);
    }

    /// Runs the command to its end, which is also that of the sandbox, if it `failed`.
    pub(super) fn run(
        &self,
        helper: Helper,
        start: Start,
        failed: impl Future<Output = Failure>,
    ) -> Result<u8, Failure> {
        self.signals.stop().check()?;
        if let Err((reason, code)) = helper.run(start)? {
            output::failure(&Failure::new(Kind::Input, reason));
            return Ok(code);
        }
        let forwarding = self.signals.forward_to(helper.signaller());
        let waiter = helper.waiter();
        let runtime = self.runtime.handle();
        let ended = runtime.block_on(async {
            tokio::select! {
                told = runtime.spawn_blocking(waiter) => Ok(told.ok().flatten()),
                failure = failed => Err(failure),
            }
        });
        drop(forwarding);
        let code = helper.end(ended.as_ref().ok().copied().flatten());
        match ended {
            Err(failure) => {
                let text = format!("{}; the command was killed", failure.message);
                Err(Failure::new(failure.kind, text))
            }
            Ok(_) => code,
        }
    }

    /// What a start that failed ends with: with the code of the signal, if it was one that ended it.
    ///
    /// # Errors
    /// The failure, if it was anything else.
    pub(super) fn not_started(&self, failure: Failure) -> Result<ExitCode, Failure> {
        self.interrupted(failure).map(ExitCode::from)
    }

    fn interrupted(&self, failure: Failure) -> Result<u8, Failure> {
        match self.signals.asked() {
            Some(signal) if failure.kind == Kind::Interrupted => {
                output::failure(&failure);
                Ok(supervise::of_signal(signal))
            }
            _ => Err(failure),
        }
    }

    /// Says what could not be undone, and passes the command's code on.
    pub(super) fn end(self, ended: Result<u8, Failure>, left: Vec<String>) -> Result<ExitCode, Failure> {
        for item in &left {
            output::warn(item);
        }
        let code = ended.or_else(|failure| self.interrupted(failure))?;
        let undone =
            if left.is_empty() { "everything undone" } else { "not everything could be undone, see above" };
        self.phases.note("end", &format!("the command ended with {code}; {undone}"));
        Ok(ExitCode::from(code))
    }
}
