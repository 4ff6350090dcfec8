//! Servers that help peers to reach each other. Neither needs root.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use lattice_wire::lrp::{QUIC_PORT, TCP_PORT};

#[derive(Debug, Subcommand)]
pub(crate) enum StartCommand {
    /// A relay: carries WireGuard packets between peers that have no other way, for peers of your control plane alone
    ///
    /// It sees who exchanges how much with whom, and nothing of what. Needs no privilege; ends at SIGTERM, after telling its clients.
    Relay(Box<Relay>),
    /// A STUN server: tells peers from which address the world sees them
    ///
    /// It answers STUN binding requests (RFC 8489) and nothing else: no TURN allocations. What relays is `lattice start relay`.
    Turn(Turn),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Relay {
    /// Where QUIC is served (UDP)
    #[arg(long, default_value_t = SocketAddr::from(([0, 0, 0, 0], QUIC_PORT)), env = "LATTICE_RELAY_LISTEN_QUIC", value_name = "IP:PORT")]
    pub(crate) listen_quic: SocketAddr,
    /// Where TLS on TCP is served, for those whom UDP does not get through
    #[arg(long, default_value_t = SocketAddr::from(([0, 0, 0, 0], TCP_PORT)), env = "LATTICE_RELAY_LISTEN_TCP", value_name = "IP:PORT")]
    pub(crate) listen_tcp: SocketAddr,
    /// Directory of the relay's key and certificate, which are made at the first start
    #[arg(
        long,
        default_value = "/var/lib/lattice-relay",
        env = "LATTICE_RELAY_DATA_DIR",
        value_name = "DIR"
    )]
    pub(crate) data_dir: PathBuf,
    /// Public nkeys whose relay tokens are accepted, as `latticed relay-key` prints them, separated by commas
    #[arg(long, value_delimiter = ',', env = "LATTICE_RELAY_TRUST", value_name = "KEY,…")]
    pub(crate) trust: Vec<String>,
    /// The control plane, which is asked at the start whose tokens to accept, instead of --trust
    #[arg(long, env = "LATTICE_SERVER_URL", value_name = "URL", required_unless_present = "trust")]
    pub(crate) server_url: Option<String>,
    /// The authority that certifies the server, in PEM, when it is not a public one
    #[arg(long, env = "LATTICE_SERVER_CA", value_name = "FILE")]
    pub(crate) server_ca: Option<PathBuf>,
    /// Name or address by which peers reach this host, for the line that is printed [default: its host name]
    #[arg(long, value_name = "HOST", value_parser = crate::start::relay::advertised)]
    pub(crate) advertise: Option<String>,
    /// Where /metrics and /healthz are served over HTTP; for nobody else than whoever watches the relay
    #[arg(long, env = "LATTICE_RELAY_METRICS_ADDR", value_name = "IP:PORT")]
    pub(crate) metrics_addr: Option<SocketAddr>,
    /// Clients at the same time; each takes up to 0.75 MB of memory
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) max_clients: u32,
    /// What one client may send, in Mbit/s [default: as much as it can]
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Turn {
    /// Where requests are answered (UDP), separated by commas [default: port 3478 of every address]
    #[arg(long, env = "LATTICE_STUN_LISTEN", value_delimiter = ',', value_name = "IP:PORT")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Where /metrics and /healthz are served over HTTP; for nobody else than whoever watches the server
    #[arg(long, env = "LATTICE_STUN_METRICS_ADDR", value_name = "IP:PORT")]
    pub(crate) metrics_addr: Option<SocketAddr>,
}
