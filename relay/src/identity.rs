//! The relay's key and certificate, in its data directory.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::tls::Fingerprint;

const KEY: &str = "relay.key";
const CERTIFICATE: &str = "relay.pem";
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 10;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The kernel refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Others could read the key.
    #[error("{path} is open to others: anybody could be this relay; `chmod go= {path}`, or remove it and pin the new fingerprint", path = .0.display())]
    Open(PathBuf),
    /// A file holds something else.
    #[error("{} does not hold {expected} in PEM: restore it, or remove it and pin the new fingerprint", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// A key or certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// What proves the relay.
#[derive(Debug)]
pub struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let (key, pem) = make()?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        Ok(Self { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() })
    }

    /// The one in `dir`; made at the first time, readable by nobody else.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let (key_path, pem_path) = (dir.join(KEY), dir.join(CERTIFICATE));
        // The certificate is written last: a first start that was cut off begins anew.
        if !pem_path.try_exists().map_err(io_error("look for", &pem_path))? {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(io_error("create", dir))?;
            let (key, pem) = make()?;
            write(&key_path, key.serialize_pem().as_bytes())?;
            write(&pem_path, pem.as_bytes())?;
        }
        let damaged = |path: &Path, expected| IdentityError::Damaged { path: path.to_owned(), expected };
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?)
            .map_err(|_| damaged(&key_path, "a private key"))?;
        let certificate = CertificateDer::from_pem_slice(&read(&pem_path)?)
            .map_err(|_| damaged(&pem_path, "a certificate"))?;
        Ok(Self { certificate, key })
    }

    /// What clients pin.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }
}

/// A key and its certificate, whose names and dates nobody looks at.
fn make() -> Result<(KeyPair, String), IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec!["relay.lattice.internal".into()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Lattice relay");
    let pem = params.self_signed(&key)?.pem();
    Ok((key, pem))
}

/// Whole or not at all, also when the power fails.
fn write(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let temporary = path.with_extension("new");
    let write = || {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(io_error("write", path))
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let open = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path);
    let file: File = open.map_err(io_error("open", path))?;
    let mode = file.metadata().map_err(io_error("inspect", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(IdentityError::Open(path.to_owned()));
    }
    let mut content = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut content).map_err(io_error("read", path))?;
    Ok(content)
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> IdentityError {
    move |source| IdentityError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_has_the_same_fingerprint_and_nobody_else_reads_the_key() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("relay");
        let first = Identity::load(&dir).unwrap().fingerprint();
        assert_eq!(Identity::load(&dir).unwrap().fingerprint(), first);
        assert_eq!(first.to_string().parse(), Ok(first));
        for name in [KEY, CERTIFICATE] {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::set_permissions(dir.join(KEY), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Identity::load(&dir), Err(IdentityError::Open(_))));
    }

    #[test]
    fn a_key_is_not_read_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load(dir.path()).unwrap();
        fs::rename(dir.path().join(KEY), dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join(KEY)).unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Io { .. })));
    }
}
