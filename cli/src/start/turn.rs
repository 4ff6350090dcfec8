//! `lattice start turn`: STUN.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

use lattice_bootstrap::{Failure, Kind};
use lattice_relay::{Metrics, stun::StunServer};

use crate::{args::Turn, output, signals::Signals};

/// Of STUN over UDP (RFC 8489 section 18.6).
const PORT: u16 = 3478;

pub(crate) fn run(args: Turn) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let signals = Signals::take(runtime.handle())?;
    runtime.block_on(async {
        let metrics = Arc::new(Metrics::default());
        let failure = |error: lattice_relay::stun::StunError| Failure::new(Kind::Taken, error.to_string());
        let server =
            if args.listen.is_empty() { both(&metrics) } else { StunServer::start(&args.listen, &metrics) };
        let server = server.map_err(failure)?;
        super::serve_metrics(args.metrics_addr, &metrics).await?;
        let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
        output::print(&format!(
            "ready    STUN on {}; tell peers by latticed --stun HOST:{}",
            addresses.join(" and "),
            server.addresses().first().map_or(PORT, SocketAddr::port)
        ));
        let mut stop = signals.stop().clone();
        stop.wait().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Both families by one socket; where there is no IPv6, IPv4 alone.
fn both(metrics: &Arc<Metrics>) -> Result<StunServer, lattice_relay::stun::StunError> {
    StunServer::start(&[(Ipv6Addr::UNSPECIFIED, PORT).into()], metrics)
        .or_else(|_| StunServer::start(&[(Ipv4Addr::UNSPECIFIED, PORT).into()], metrics))
}
