//! TLS: latticed's own certificate authority, and the certificates of its two servers.
//!
//! ```text
//! ca.key, ca.pem   made once, 10 years   peers pin it when they enrol
//!   ├─► nats-server   always             nats.lattice.internal, whatever its address is
//!   └─► HTTP API      --tls self-signed  the names and addresses of this host, and --tls-san
//! ```
//!
//! Certificates live for [`LIFETIME`] and are made anew at each start and each day, so that none ever ends in use.

mod authority;
mod https;
mod keep;

use std::path::PathBuf;

pub use authority::{Authority, NATS_NAME};
pub use https::{Https, Source, host_names, read};
pub use keep::Certificates;

use crate::data_dir::DataDirError;

/// How long a server's certificate is good for, in seconds.
pub const LIFETIME: u64 = 90 * 24 * 3600;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or certificate of ours could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A given file cannot be read.
    #[error("cannot read {}: {source}; check --tls-cert, --tls-key and --nats-ca", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// How it failed.
        source: std::io::Error,
    },
    /// A given file holds something else.
    #[error("{} does not hold {expected} in PEM", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// The certificate and its key do not fit each other, or are of no use.
    #[error("the certificate for HTTPS cannot be used: {0}; check --tls-cert and --tls-key")]
    Unusable(#[from] rustls::Error),
    /// Its place in the data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}
