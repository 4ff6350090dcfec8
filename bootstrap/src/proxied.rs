//! Phase one of pod mode: no privilege and nothing of the kernel's. The agent reaches the overlay by a proxy in this process, and peers reach the
//! host's services by port forwards; what it does beside the proxy is not ours to prevent (enforcement class `cooperative`).
//!
//! ```text
//! state ─► identity ─► device ─► policy ─► resolver ─► forwards ─► proxy ─► peers ─► control
//! ```
//!
//! Forwards and proxy are tasks of the device's thread, so a packet of theirs crosses no lock and no other thread. That thread never waits for the
//! lock of the live policy, whose holder may be waiting for the device: verdicts come from the device, and texts of rules from the generations.

mod flows;
pub(crate) mod forwards;
pub(crate) mod never;
mod outbound;
mod outside;
pub(crate) mod record;
mod refusal;
mod steps;
pub(crate) mod stream;
mod tasks;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use lattice_policy::{Local, RuleSpec};
use lattice_proxy::Forward;
use tokio::runtime::Handle;

use crate::{
    Failure, Join, Kind, Progress, StateDir, Status, Steps, Stop,
    base::{Base, control_step, peers_step},
    clock::now_unix,
    control::{Report, Sources},
    enforce,
    live::{self, Closed},
    policed::{self, Policed},
};

/// What `lattice sandbox start --mode pod` needs to know of phase one.
#[derive(Debug)]
pub struct ProxiedConfig {
    /// Who it is.
    pub join: Join,
    /// What the agent may reach. Nothing else.
    pub egress: Vec<RuleSpec>,
    /// Where flow records go.
    pub audit_file: PathBuf,
    /// Bytes of an inner packet.
    pub mtu: u16,
    /// Where the proxy listens, and for whom. Without it there is none.
    pub proxy: Option<lattice_proxy::Config>,
    /// Ports of the overlay that lead to services of the host.
    pub forwards: Vec<Forward>,
}

/// A running sandbox of pod mode. Dropping it undoes all of it.
pub struct ProxiedSandbox {
    steps: Steps<'static>,
    status: Status,
    proxy: Option<SocketAddr>,
    reports: Reports,
    ended: tasks::Ended,
}

/// Makes a report, for whoever asks while the sandbox runs.
type Reports = Arc<dyn Fn() -> Result<Report, Failure> + Send + Sync>;

impl ProxiedSandbox {
    /// Runs phase one. `runtime` serves the control connection as long as the sandbox lives. Must not be called from a task of a runtime.
    ///
    /// # Errors
    /// The first step that failed; all earlier ones are undone.
    pub fn start(
        config: ProxiedConfig,
        state: StateDir,
        runtime: &Handle,
        progress: &mut dyn Progress,
        stop: &Stop,
    ) -> Result<Self, Failure> {
        let ProxiedConfig { join, egress, audit_file, mtu, proxy, forwards } = config;
        let mut steps = Steps::new(progress, stop.clone());
        let state = Base::state_step(&mut steps, state)?;
        let base = Base::start(&mut steps, &join, runtime, stop)?;
        let map = base.map();
        let (own, overlay) = (base.own(), base.overlay());
        let local = Local {
            flags: egress,
            offered: forwards::offered(&forwards, overlay.pool())?,
            ..Local::default()
        };

        let (tasks, ended, serve) = tasks::tasks();
        let device = steps::device(&mut steps, &base, &join.name, mtu, serve)?;
        let first = Arc::new(live::wanted(1, &local, map, now_unix())?);
        let closed = Closed { nets: base.closed()?, ..Closed::default() };
        let policed = steps.run("policy", || {
            let gone = || Failure::new(Kind::Internal, "the device has no filter");
            let started = enforce::cooperative(device.filter().cloned().ok_or_else(gone)?)?;
            policed::begin(started, local, first, closed, &audit_file, &join.name)
        })?;
        let resolver = steps::resolver(&mut steps, &base, &policed)?;
        steps::forwards(&mut steps, &tasks, forwards, &policed.generations)?;
        let served = match proxy {
            Some(proxy) => {
                let behind = steps::Behind { names: resolver.asker(), policed: &policed, own, overlay };
                Some(steps::proxy(&mut steps, &tasks, proxy, behind)?)
            }
            None => None,
        };

        let status = base.status(&*device, &policed.words, audit_file, None);
        let peers = peers_step(&mut steps, base, device, Some(policed.live.clone()), runtime)?;
        let Policed { enforcer, live, words, .. } = policed;
        let (address, counters) = served.unzip();
        let sources =
            Sources { words: Arc::new(Mutex::new(words)), live, enforcer, resolver, overlay: peers };
        let report = move || {
            let proxy = counters.as_ref().map(steps::Counted::ask).transpose()?;
            Ok(Report { proxy, ..sources.report()? })
        };
        // Whoever asks must not keep alive what the steps undo.
        let kept = Arc::new(report);
        let lent = Arc::downgrade(&kept);
        let reports: Reports = Arc::new(move || {
            let over = || Failure::new(Kind::Input, "the sandbox does not run any more");
            lent.upgrade().ok_or_else(over)?()
        });
        control_step(&mut steps, &state, "lattice sandbox rules", move || kept())?;
        state.publish(&status)?;
        Ok(Self { steps: steps.finish(), status, proxy: address, reports, ended })
    }

    /// What `lattice status` shows.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Where the proxy listens: with its port, when any was asked for.
    pub fn proxy(&self) -> Option<SocketAddr> {
        self.proxy
    }

    /// What `lattice sandbox rules` shows, for whoever asks while the sandbox runs. An error says that it does not any more. Blocks for as long
    /// as the device takes to answer.
    pub fn reports(&self) -> Arc<dyn Fn() -> Result<Report, Failure> + Send + Sync> {
        self.reports.clone()
    }

    /// Waits until the device, the proxy or a forward has ended by itself, and names the first: a sandbox that is of no use must not seem to run.
    pub async fn failed(&self) -> Failure {
        let mut ended = self.ended.clone();
        let what = match ended.wait_for(Option::is_some).await {
            Ok(what) => what.clone().unwrap_or_default(),
            Err(_) => "the overlay's device".into(),
        };
        Failure::new(
            Kind::Internal,
            format!("{what} has ended by itself; the log may say why: start the sandbox again"),
        )
    }

    /// Undoes phase one, and says what could not be undone.
    pub fn stop(mut self) -> Vec<String> {
        self.steps.undo()
    }
}

#[cfg(test)]
mod tests;
