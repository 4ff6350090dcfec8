//! Our log, by the FIFO that containerd reads and copies into its own: lines as logrus writes them.
//!
//! Nobody may be reading, or too slowly: then lines are dropped and counted, and we are never held up.

mod fifo;
mod logrus;

use std::{path::Path, sync::Mutex};

use tracing_subscriber::EnvFilter;

/// Begins to log to the FIFO at `path`, which need not be there yet. A filter that cannot be read is taken for "info". Later calls do
/// nothing.
pub fn start(path: &Path, filter: &str) {
    let (filter, wrong) = match EnvFilter::try_new(filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    // The working directory is the bundle for as long as this process runs.
    let begun = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .event_format(logrus::Logrus)
        .with_writer(Mutex::new(fifo::Fifo::at(path.to_owned())))
        .try_init();
    if let (Ok(()), Some(error)) = (begun, wrong) {
        tracing::warn!(%error, "the log's filter in shim.toml is wrong");
    }
}
