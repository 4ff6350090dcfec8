//! The command line. Every option can also be given by environment; the command line wins.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use lattice_wire::{HostPort, RelayServer};

use crate::{nats::NatsUrl, pool::Pool, store::PostgresUrl};

/// The Lattice control plane: admits peers, leases their addresses and tells each one its network map.
#[derive(Debug, Clone, Parser)]
#[command(name = "latticed", version, about, after_help = EXIT_CODES)]
pub struct Args {
    /// Without one, latticed serves.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Directory of the database, the keys and the admin token; made with mode 0700 when missing.
    #[arg(
        long,
        global = true,
        env = "LATTICE_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/latticed"
    )]
    pub data_dir: PathBuf,

    /// Address of the HTTP API. Port 0 takes a free one.
    #[arg(long, env = "LATTICE_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Address on which the supervised nats-server listens. Port 0 takes a free one.
    #[arg(long, env = "LATTICE_NATS_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:4222")]
    pub nats_listen: SocketAddr,

    /// The nats-server to supervise, when the one on PATH is not the right one.
    #[arg(long, env = "LATTICE_NATS_SERVER", value_name = "PATH", conflicts_with = "nats_url")]
    pub nats_server: Option<PathBuf>,

    /// Use this NATS server or cluster instead of supervising one; several servers are separated by commas. Their configuration must
    /// include <data-dir>/nats-trust.conf.
    #[arg(long, env = "LATTICE_NATS_URL", value_name = "URL,…")]
    pub nats_url: Option<NatsUrl>,

    /// The NATS URL that peers are told, when it cannot be derived from the host name under which they reached the HTTP API.
    #[arg(long, env = "LATTICE_ADVERTISE_NATS_URL", value_name = "URL,…")]
    pub advertise_nats_url: Option<NatsUrl>,

    /// The authority that certifies the server at --nats-url, in PEM; peers are told to trust it alone.
    #[arg(long, env = "LATTICE_NATS_CA", value_name = "FILE", requires = "nats_url")]
    pub nats_ca: Option<PathBuf>,

    /// HTTPS with a certificate of latticed's own authority (ca.pem in the data directory), or none.
    #[arg(long, env = "LATTICE_TLS", value_name = "MODE", default_value = "off")]
    pub tls: TlsMode,

    /// More names and addresses for the self-signed certificate, beside those of this host.
    #[arg(long, env = "LATTICE_TLS_SAN", value_name = "NAME,…", value_delimiter = ',')]
    pub tls_san: Vec<String>,

    /// HTTPS with this certificate chain, in PEM.
    #[arg(long, env = "LATTICE_TLS_CERT", value_name = "FILE", requires = "tls_key", conflicts_with = "tls")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, in PEM.
    #[arg(long, env = "LATTICE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Network from which overlay addresses are leased.
    #[arg(long, global = true, env = "LATTICE_POOL", value_name = "CIDR", default_value = "10.42.0.0/16")]
    pub pool: Pool,

    /// Seconds for which the address of a removed peer is not leased again.
    #[arg(
        long,
        global = true,
        env = "LATTICE_ADDRESS_QUARANTINE",
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u32)
    )]
    pub address_quarantine: u32,

    /// Days for which the row of a removed peer is kept.
    #[arg(
        long,
        env = "LATTICE_KEEP_REMOVED",
        value_name = "DAYS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u16)
    )]
    pub keep_removed: u16,

    /// STUN servers that peers are told of, by which they learn how the world sees them; at most 8.
    #[arg(long, env = "LATTICE_STUN", value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub stun: Vec<HostPort>,

    /// Relays that peers are told of, as `lattice start relay` prints them: lrp://HOST[:PORT][?tcp=PORT][&name=NAME]#sha256=HEX. At most
    /// 8, each with a name of its own.
    #[arg(long, env = "LATTICE_RELAY", value_name = "URL,…", value_delimiter = ',')]
    pub relay: Vec<RelayServer>,

    /// Postgres database, as postgres://user:password@host/database; without it, a SQLite file in the data directory. With a password, prefer
    /// the environment or --database-url-file: the command line is visible to every user of this host.
    #[arg(
        long,
        global = true,
        env = "LATTICE_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        conflicts_with = "database_url_file"
    )]
    pub database_url: Option<PostgresUrl>,

    /// File that holds the URL of the Postgres database.
    #[arg(long, global = true, env = "LATTICE_DATABASE_URL_FILE", value_name = "PATH")]
    pub database_url_file: Option<PathBuf>,

    /// What to log: a level, or a tracing filter such as `latticed=debug,sqlx=warn`.
    #[arg(
        long,
        global = true,
        env = "LATTICE_LOG",
        value_name = "FILTER",
        default_value = "info,async_nats=warn,sqlx=warn"
    )]
    pub log: String,
}

/// Whether the HTTP API makes its certificate itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TlsMode {
    /// Plain HTTP, unless --tls-cert is given.
    Off,
    /// A certificate of latticed's own authority.
    SelfSigned,
}

/// What latticed does instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Write a new one-time admin token, for `lattice login`, to the data directory and print the path of its file.
    /// latticed may be running.
    AdminToken,
    /// Copy the keys and, unless it is in Postgres, the database to a new directory, which can be used as a data directory.
    /// latticed may be running.
    Backup {
        /// It must not exist yet.
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Print the public key of the tokens that peers show to relays, for `lattice start relay --trust`. latticed must have been
    /// started once.
    RelayKey,
    /// Make the keys in the data directory and --pool those of the database. Every latticed of it must be stopped. With other
    /// keys, every peer must enrol again.
    Adopt,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  ended by SIGTERM or SIGINT
  1  another failure
  2  bad usage
  3  no nats-server found
  4  an address cannot be listened on
  5  the data directory cannot be used
  6  the data directory is locked by another latticed
  7  NATS does not come up or does not let latticed in
  8  the database belongs to a latticed with other keys or another --pool";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_option_has_an_environment_variable() {
        for arg in
            Args::command().get_arguments().filter(|a| !matches!(a.get_id().as_str(), "help" | "version"))
        {
            assert!(arg.get_env().is_some(), "{}", arg.get_id());
        }
    }
}
