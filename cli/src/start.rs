//! `lattice start`: servers that run until they are told to end.

pub(crate) mod relay;
pub(crate) mod turn;

use std::{net::SocketAddr, sync::Arc};

use lattice_bootstrap::{Failure, Kind};
use lattice_relay::{Metrics, serve_status};
use tokio::runtime::Runtime;

use crate::output;

/// A runtime with a thread per core.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::Internal, format!("cannot start the runtime: {error}")))
}

/// Serves metrics, if they are wanted, until the runtime ends.
async fn serve_metrics(address: Option<SocketAddr>, metrics: &Arc<Metrics>) -> Result<(), Failure> {
    let Some(address) = address else { return Ok(()) };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| {
        Failure::new(
            Kind::Taken,
            format!("cannot listen on {address} (metrics): {error}; give another --metrics-addr"),
        )
    })?;
    if let Ok(address) = listener.local_addr() {
        output::print(&format!("metrics  http://{address}/metrics"));
    }
    tokio::spawn(serve_status(listener, Arc::clone(metrics)));
    Ok(())
}
