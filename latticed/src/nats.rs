//! NATS in operator mode: the server that latticed supervises, and who may do what on it.
//!
//! ```text
//! operator key ── signs ──► system account ── signs ──► latticed again   tells of revocations
//!              └─ signs ──► account LATTICE ── signs ──► latticed itself   everything
//!                                                    ├─► bootstrap user    publish one subject, read its own inbox
//!                                                    └─► peer user         its own subjects, nothing else
//! ```
//!
//! The server holds public keys only: it needs no call back to latticed to tell who may do what. What latticed tells it, by the
//! account's JWT, is who may no more: removed peers, until their own JWTs have ended anyway.

mod bootstrap;
mod client;
mod config;
mod files;
mod issuer;
mod jwt;
mod pdeathsig;
mod revoker;
mod server;
mod url;

use std::{net::SocketAddr, path::PathBuf};

pub use client::connect;
pub use files::Files;
pub use issuer::{Issuer, Revoked, Trust, jwt_expiry};
pub use jwt::JwtError;
pub use revoker::Revoker;
pub use server::{NatsServer, Setup, find, local};
pub use url::NatsUrl;

use crate::{data_dir::DataDirError, tls::TlsError};

/// Largest message of a peer. latticed's own may be as big as [`lattice_wire::message::MAX_MESSAGE`].
pub const MAX_PEER_PAYLOAD: usize = 16 << 10;

/// Why there is no NATS to work with.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// Nothing to supervise.
    #[error(
        "no nats-server on PATH: install it with `apt-get install nats-server`, name it with --nats-server, or use a running one with --nats-url"
    )]
    NotFound,
    /// What was named is not a program.
    #[error("cannot run {}: {source}; name an executable nats-server with --nats-server", path.display())]
    Spawn {
        /// Which file.
        path: PathBuf,
        /// How it failed.
        source: std::io::Error,
    },
    /// The port is taken, or the address is not ours.
    #[error("nats-server cannot listen on {address}: {source}; give another --nats-listen")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// How it failed.
        source: std::io::Error,
    },
    /// It ended before it was ready.
    #[error("nats-server ended while starting: {0}")]
    Ended(String),
    /// It did not become ready.
    #[error("nats-server was not ready after {0} s; run with --log latticed=debug to see its output")]
    Slow(u64),
    /// latticed could not connect.
    #[error("cannot connect to NATS at {url}, in {attempts} attempts: {source}; is it up, and does its configuration include {}?", config.display())]
    Connect {
        /// Where.
        url: String,
        /// The configuration that it must have.
        config: PathBuf,
        /// How often it was tried.
        attempts: u32,
        /// How the last one failed.
        source: async_nats::ConnectError,
    },
    /// latticed could not subscribe.
    #[error("cannot subscribe on NATS: {0}")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// latticed could not be sure that it is subscribed.
    #[error("cannot subscribe on NATS: {0}")]
    Flush(String),
    /// No server took the list of revoked users.
    #[error("NATS does not take the list of revoked users: {0}; removed peers stay connected until it does")]
    Revoke(String),
    /// The server's certificate could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authority that certifies the server is none.
    #[error("TLS to NATS: {0}")]
    Trust(#[from] lattice_wire::trust::InvalidTrust),
    /// Its configuration could not be written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The server's URL could not be formed.
    #[error("URL of nats-server: {0}")]
    Url(#[from] url::InvalidNatsUrl),
    /// A JWT could not be signed.
    #[error(transparent)]
    Jwt(#[from] jwt::JwtError),
}
