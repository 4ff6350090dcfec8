//! The certificate of the HTTP API.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use lattice_wire::trust;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

use super::{Authority, TlsError};

/// Longest PEM file that is read.
const MAX_PEM: u64 = 64 << 10;

/// Where the certificate comes from.
#[derive(Debug)]
pub enum Source {
    /// From the operator; read again each day, so that whoever renews them need not tell us.
    Files {
        /// The chain, the server's own certificate first.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// From our own authority, for these names and addresses.
    SelfSigned(Vec<String>),
}

/// TLS for the HTTP API.
pub struct Https {
    source: Source,
    acceptor: RwLock<TlsAcceptor>,
}

impl Https {
    /// With a certificate from `source`.
    ///
    /// # Errors
    /// When it cannot be read, made or used.
    pub fn new(source: Source, authority: &Authority, now: i64) -> Result<Self, TlsError> {
        let acceptor = RwLock::new(acceptor(&source, authority, now)?);
        Ok(Self { source, acceptor })
    }

    /// Takes the certificate from its source once more, for the connections from now on.
    ///
    /// # Errors
    /// As [`Https::new`]; the former certificate stays.
    pub fn renew(&self, authority: &Authority, now: i64) -> Result<(), TlsError> {
        let acceptor = acceptor(&self.source, authority, now)?;
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
        Ok(())
    }

    /// For one connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn acceptor(source: &Source, authority: &Authority, now: i64) -> Result<TlsAcceptor, TlsError> {
    let (chain, key) = match source {
        Source::Files { certificate, key } => {
            let content = |path: &Path, expected| TlsError::Content { path: path.to_owned(), expected };
            let chain = trust::certificates(&read(certificate)?)
                .map_err(|_| content(certificate, "a certificate chain"))?;
            let secret = PrivateKeyDer::from_pem_slice(read(key)?.as_bytes())
                .map_err(|_| content(key, "a private key"))?;
            (chain, secret)
        }
        Source::SelfSigned(names) => {
            let made = authority.certify(names.clone(), now)?;
            let unusable = |_| TlsError::Unusable(rustls::Error::NoCertificatesPresented);
            let chain = trust::certificates(&made.certificate)
                .map_err(|_| TlsError::Unusable(rustls::Error::NoCertificatesPresented))?;
            (chain, PrivateKeyDer::from_pem_slice(made.key.as_bytes()).map_err(unusable)?)
        }
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A PEM file of bounded size.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<String, TlsError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PEM).read_to_string(&mut text))
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    Ok(text)
}

/// The names and addresses under which this host may be reached, and `more`.
pub fn host_names(more: &[String]) -> Vec<String> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()));
    for link in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(address) = link.address else { continue };
        names.extend(address.as_sockaddr_in().map(|address| address.ip().to_string()));
        names.extend(address.as_sockaddr_in6().map(|address| address.ip().to_string()));
    }
    names.extend(more.iter().cloned());
    names.into_iter().filter(|name| !name.is_empty()).collect()
}
