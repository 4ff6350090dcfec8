//! Why latticed ends, and the exit code that says so.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode};

use crate::{
    data_dir::DataDirError, nats::NatsError, reach::InvalidServers, store::StoreError, tls::TlsError,
};

/// Why latticed cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// `--log` does not parse.
    #[error("invalid --log {filter:?}: {source}")]
    Log {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Peers cannot be told of these STUN servers or relays.
    #[error(transparent)]
    Servers(#[from] InvalidServers),
    /// The HTTP address is not to be had.
    #[error("HTTP cannot listen on {address}: {source}; give another --listen")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// How it failed.
        source: io::Error,
    },
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The file that names the database.
    #[error("cannot read {}: {source}; give another --database-url-file", path.display())]
    DatabaseUrl {
        /// Which.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// A backup cannot be made.
    #[error("cannot write the backup {}: {source}; give a directory that does not exist yet, in one that does", path.display())]
    Backup {
        /// Where.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// NATS.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operating system refused something basic.
    #[error("cannot {action}: {source}")]
    System {
        /// What.
        action: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

impl Failure {
    /// As listed by `latticed --help`.
    pub fn exit_code(&self) -> ExitCode {
        let code = match self {
            Self::System { .. } => 1,
            Self::Log { .. } | Self::Servers(_) | Self::Store(StoreError::OutsidePool { .. }) => 2,
            Self::Nats(NatsError::NotFound | NatsError::Spawn { .. }) => 3,
            Self::Listen { .. } | Self::Nats(NatsError::Listen { .. }) => 4,
            Self::DataDir(DataDirError::Locked(_)) => 6,
            Self::Store(StoreError::OtherOwner(_) | StoreError::OtherPool { .. }) => 8,
            Self::DataDir(_)
            | Self::DatabaseUrl { .. }
            | Self::Backup { .. }
            | Self::Store(_)
            | Self::Nats(NatsError::DataDir(_))
            | Self::Tls(TlsError::DataDir(_)) => 5,
            Self::Tls(TlsError::Make(_)) => 1,
            Self::Tls(_) => 2,
            Self::Nats(_) => 7,
        };
        code.into()
    }
}
