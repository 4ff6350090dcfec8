//! Signals: before the agent runs they end phase one, afterwards they go to the agent.
//!
//! An ending signal is passed on as it is. What still runs [`GRACE`] later, or at the next ending signal, is killed: an
//! agent is not trusted to end because it was asked to.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use lattice_bootstrap::{Failure, Kind, Stop};
use lattice_runsc::{RunscError, Signaller};
use nix::sys::signal::Signal;
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::output;

/// As long as container runtimes usually give.
const GRACE: Duration = Duration::from_secs(10);

/// What is typed within that time of the one before is the same wish: who uses an agent's own prompt types slower.
const IN_A_ROW: Duration = Duration::from_secs(2);

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

/// Who is given signals.
pub(crate) trait Receiver: Send + Sync {
    /// Gives it one. It is no failure when it has ended. May block for a moment, but not for SIGKILL.
    fn send(&self, signal: Signal) -> Result<(), String>;

    /// Whether the terminal gave it this one together with us: it is then between the two, and neither passed on nor the end.
    fn has_it_from_the_terminal(&self, _: Signal) -> bool {
        false
    }
}

impl Receiver for Signaller {
    fn send(&self, signal: Signal) -> Result<(), String> {
        match Signaller::send(self, signal) {
            Ok(()) | Err(RunscError::Ended(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The process's signals, taken over for good.
pub(crate) struct Signals {
    shared: Arc<Shared>,
    stop: Stop,
}

struct Shared {
    runtime: Handle,
    stop: watch::Sender<bool>,
    target: Mutex<Target>,
    /// Read while a signal is on its way.
    passing: RwLock<()>,
}

#[derive(Default)]
struct Target {
    agent: Option<Arc<dyn Receiver>>,
    /// The first ending signal.
    asked: Option<Signal>,
    /// It was passed on.
    told: bool,
    /// How often the user has typed one in a row, and when the last.
    typed: (u32, Option<Instant>),
}

impl Signals {
    /// Takes them over.
    pub(crate) fn take(runtime: &Handle) -> Result<Self, Failure> {
        let (sender, stop) = Stop::new();
        let shared = Arc::new(Shared {
            runtime: runtime.clone(),
            stop: sender,
            target: Mutex::default(),
            passing: RwLock::default(),
        });
        let _context = runtime.enter();
        for (kind, number) in ENDING {
            let mut stream = signal(kind).map_err(|error| Failure::new(Kind::Internal, error))?;
            let shared = shared.clone();
            runtime.spawn(async move {
                while stream.recv().await.is_some() {
                    shared.end(number);
                }
            });
        }
        for (kind, number) in PASSING {
            let mut stream = signal(kind).map_err(|error| Failure::new(Kind::Internal, error))?;
            let shared = shared.clone();
            runtime.spawn(async move {
                while stream.recv().await.is_some() {
                    let agent = shared.target().agent.clone();
                    if agent.is_some_and(|agent| agent.has_it_from_the_terminal(number)) {
                        continue;
                    }
                    let passing = shared.clone();
                    let _ = shared.runtime.spawn_blocking(move || passing.pass(number)).await;
                }
            });
        }
        Ok(Self { shared, stop })
    }

    /// Set by the first ending signal.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// The first ending signal, if there was one.
    pub(crate) fn asked(&self) -> Option<Signal> {
        self.shared.target().asked
    }

    /// From now on signals also go to `agent`, until the returned value is dropped.
    pub(crate) fn forward_to(&self, agent: impl Receiver + 'static) -> Forwarding {
        let asked = {
            let mut target = self.shared.target();
            target.agent = Some(Arc::new(agent));
            target.asked
        };
        // One that came while the agent was being started would otherwise be lost on it: the terminal gave it to us alone.
        if let Some(number) = asked {
            self.shared.ask(number);
        }
        Forwarding(self.shared.clone())
    }
}

/// Ends the forwarding when dropped, and waits for what is on its way: it holds on to the agent's files.
pub(crate) struct Forwarding(Arc<Shared>);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.target().agent.take();
        drop(self.0.passing.write());
    }
}

impl Shared {
    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Must not wait: the next signal is seen only after it.
    fn end(self: &Arc<Self>, number: Signal) {
        let agent = self.target().agent.clone();
        if agent.is_some_and(|agent| agent.has_it_from_the_terminal(number)) {
            return self.typed();
        }
        self.ask(number);
    }

    /// Asks the agent to end, if it runs already.
    fn ask(self: &Arc<Self>, number: Signal) {
        let (running, again) = {
            let mut target = self.target();
            target.asked.get_or_insert(number);
            let running = target.agent.is_some();
            (running, running && std::mem::replace(&mut target.told, true))
        };
        let _ = self.stop.send(true);
        if again {
            return self.pass(Signal::SIGKILL);
        }
        if !running {
            return;
        }
        output::warn(&format!(
            "{number} passed on; the agent is killed in {} s, or at the next signal",
            GRACE.as_secs()
        ));
        let shared = self.clone();
        self.runtime.spawn_blocking(move || shared.pass(number));
        let shared = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(GRACE).await;
            shared.pass(Signal::SIGKILL);
        });
    }

    /// Somebody has typed what ends most programs. It is for the agent to say what comes of that; one that makes nothing of it is asked to end by the
    /// second in a row, and killed by the third.
    fn typed(self: &Arc<Self>) {
        let times = {
            let (times, last) = &mut self.target().typed;
            let in_a_row = last.replace(Instant::now()).is_some_and(|last| last.elapsed() < IN_A_ROW);
            *times = if in_a_row { *times + 1 } else { 1 };
            *times
        };
        match times {
            1 => {}
            2 => {
                output::warn("asking the agent to end (SIGTERM); once more kills it");
                let shared = self.clone();
                self.runtime.spawn_blocking(move || shared.pass(Signal::SIGTERM));
            }
            _ => self.pass(Signal::SIGKILL),
        }
    }

    /// Blocks for some 40 ms, but not for SIGKILL.
    fn pass(&self, number: Signal) {
        let _passing = self.passing.read();
        let Some(agent) = self.target().agent.clone() else { return };
        if let Err(error) = agent.send(number) {
            tracing::warn!(error, signal = %number, "cannot signal the agent");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::runtime::Runtime;

    /// An agent in the terminal's foreground, where what is typed reaches it without us.
    struct Foreground(mpsc::Sender<Signal>);

    impl Receiver for Foreground {
        fn send(&self, signal: Signal) -> Result<(), String> {
            self.0.send(signal).map_err(|error| error.to_string())
        }

        fn has_it_from_the_terminal(&self, signal: Signal) -> bool {
            signal == Signal::SIGINT
        }
    }

    fn signals(runtime: &Handle) -> Signals {
        let (stop, stopped) = Stop::new();
        let (target, passing) = (Mutex::default(), RwLock::default());
        Signals {
            shared: Arc::new(Shared { runtime: runtime.clone(), stop, target, passing }),
            stop: stopped,
        }
    }

    #[test]
    fn what_was_typed_before_the_agent_ran_is_passed_on() {
        let runtime = Runtime::start().unwrap();
        let signals = signals(runtime.handle());
        let (agent, sent) = mpsc::channel();
        signals.shared.end(Signal::SIGINT);
        let forwarding = signals.forward_to(Foreground(agent));
        assert_eq!(sent.recv_timeout(GRACE / 2), Ok(Signal::SIGINT));
        drop(forwarding);
    }

    #[test]
    fn what_is_typed_while_the_agent_runs_is_not() {
        let runtime = Runtime::start().unwrap();
        let signals = signals(runtime.handle());
        let (agent, sent) = mpsc::channel();
        let forwarding = signals.forward_to(Foreground(agent));
        signals.shared.end(Signal::SIGINT);
        assert_eq!(signals.asked(), None);
        signals.shared.end(Signal::SIGTERM);
        assert_eq!(sent.recv_timeout(GRACE / 2), Ok(Signal::SIGTERM));
        drop(forwarding);
    }
}
