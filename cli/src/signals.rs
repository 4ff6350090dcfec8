//! Signals: before the agent runs they end phase one, afterwards they go to the agent.

use std::sync::{Arc, Mutex, PoisonError};

use lattice_bootstrap::{Failure, Kind, Stop};
use lattice_shim::Signaller;
use nix::sys::signal::Signal;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Which signals end a sandbox or a node.
const ENDING: [(SignalKind, Signal); 4] = [
    (SignalKind::interrupt(), Signal::SIGINT),
    (SignalKind::terminate(), Signal::SIGTERM),
    (SignalKind::hangup(), Signal::SIGHUP),
    (SignalKind::quit(), Signal::SIGQUIT),
];
/// Which signals only concern a running agent.
const PASSING: [(SignalKind, Signal); 3] = [
    (SignalKind::user_defined1(), Signal::SIGUSR1),
    (SignalKind::user_defined2(), Signal::SIGUSR2),
    (SignalKind::window_change(), Signal::SIGWINCH),
];

type Child = Arc<Mutex<Option<Signaller>>>;

/// The process's signals, taken over for good.
pub(crate) struct Signals {
    child: Child,
    stop: Stop,
}

impl Signals {
    /// Takes them over.
    pub(crate) fn take(runtime: &Runtime) -> Result<Self, Failure> {
        let (sender, stop) = Stop::new();
        let sender = Arc::new(sender);
        let child = Child::default();
        let _context = runtime.enter();
        for (kind, number, ending) in
            ENDING.iter().map(|(k, n)| (*k, *n, true)).chain(PASSING.iter().map(|(k, n)| (*k, *n, false)))
        {
            let mut stream = signal(kind).map_err(|error| Failure::new(Kind::Internal, error))?;
            let (sender, child): (Arc<watch::Sender<bool>>, _) = (sender.clone(), child.clone());
            runtime.spawn(async move {
                while stream.recv().await.is_some() {
                    if ending {
                        let _ = sender.send(true);
                    }
                    forward(&child, number);
                }
            });
        }
        Ok(Self { child, stop })
    }

    /// Set by the first ending signal.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// From now on signals also go to `agent`, until the returned value is dropped.
    pub(crate) fn forward_to(&self, agent: Signaller) -> Forwarding {
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(agent);
        // One that came between the last step and now would otherwise be lost on the agent.
        if self.stop.is_set() {
            forward(&self.child, Signal::SIGTERM);
        }
        Forwarding(self.child.clone())
    }
}

/// Ends the forwarding when dropped.
pub(crate) struct Forwarding(Child);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn forward(child: &Child, number: Signal) {
    if let Some(agent) = &*child.lock().unwrap_or_else(PoisonError::into_inner)
        && let Err(error) = agent.send(number)
    {
        tracing::debug!(%error, "the agent is gone already");
    }
}
