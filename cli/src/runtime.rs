//! The runtime that serves the control connection and the signals.

use std::time::Duration;

use lattice_bootstrap::{Failure, Kind};
use tokio::runtime::{Builder, Handle};

/// A request to a server that does not answer must not hold the end back.
const PATIENCE: Duration = Duration::from_secs(1);

/// Dropping it ends its tasks, within [`PATIENCE`].
pub(crate) struct Runtime {
    handle: Handle,
    inner: Option<tokio::runtime::Runtime>,
}

impl Runtime {
    pub(crate) fn start() -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(8)
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Kind::Internal, format!("cannot start the runtime: {error}")))?;
        Ok(Self { handle: runtime.handle().clone(), inner: Some(runtime) })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.inner.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}
