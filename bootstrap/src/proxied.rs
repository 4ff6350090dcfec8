//! Phase one of pod mode: no privilege and nothing of the kernel's. The agent reaches the overlay by a proxy in this process, and peers reach the
//! host's services by port forwards; what it does beside the proxy is not ours to prevent (enforcement class `cooperative`).

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use lattice_policy::RuleSpec;
use lattice_proxy::Forward;
use tokio::runtime::Handle;

use crate::{Failure, Join, Progress, StateDir, Status, Steps, Stop, control::Report};

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
    _steps: Steps<'static>,
}

impl ProxiedSandbox {
    /// Runs phase one. `runtime` serves the control connection as long as the sandbox lives.
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
        let _ = (config, state, runtime, progress, stop);
        todo!()
    }

    /// What `lattice status` shows.
    pub fn status(&self) -> &Status {
        todo!()
    }

    /// Where the proxy listens: with its port, when any was asked for.
    pub fn proxy(&self) -> Option<SocketAddr> {
        todo!()
    }

    /// What `lattice sandbox rules` shows, for whoever asks while the sandbox runs. An error says that it does not any more.
    pub fn reports(&self) -> Arc<dyn Fn() -> Result<Report, Failure> + Send + Sync> {
        todo!()
    }

    /// Waits until the device or the proxy has ended by itself, and says why: a sandbox that is of no use must not seem to run.
    pub async fn failed(&self) -> Failure {
        todo!()
    }

    /// Undoes phase one, and says what could not be undone.
    pub fn stop(self) -> Vec<String> {
        todo!()
    }
}
