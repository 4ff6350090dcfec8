//! The certificate authority in the data directory.

use std::{fmt, time::Duration};

use lattice_wire::{message::TlsTrust, trust};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use sha2::{Digest as _, Sha256};

use super::{LIFETIME, TlsError};
use crate::data_dir::{DataDir, DataDirError};

/// The name in the certificate of the supervised nats-server.
pub const NATS_NAME: &str = "nats.lattice.internal";

const CA_KEY: &str = "ca.key";
const CA_CERTIFICATE: &str = "ca.pem";
const CA_LIFETIME: u64 = 10 * 365 * 24 * 3600;
/// Clocks differ: what was made a moment ago must be valid everywhere.
const BACKDATED: u64 = 3600;

/// Signs the certificates of this control plane.
pub struct Authority {
    pem: String,
    fingerprint: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// Its key: secret.
    pub key: String,
}

impl Authority {
    /// Reads the authority from the data directory, making it when it is not there. `now` is in Unix seconds.
    ///
    /// # Errors
    /// When its files cannot be read or written, or hold something else.
    pub fn load(dir: &DataDir, now: i64) -> Result<Self, TlsError> {
        let damaged = |name, expected| DataDirError::Damaged { path: dir.join(name), expected };
        let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem();
        let (key, _) = dir.secret(CA_KEY, || made)?;
        let key = KeyPair::from_pem(&key).map_err(|_| damaged(CA_KEY, "a private key in PEM"))?;
        let params = params(now);
        let made = params.self_signed(&key)?.pem().trim().to_owned();
        let (pem, _) = dir.secret(CA_CERTIFICATE, || made)?;
        let certificates =
            trust::certificates(&pem).map_err(|_| damaged(CA_CERTIFICATE, "a certificate in PEM"))?;
        let fingerprint = data_encoding::HEXLOWER.encode(&Sha256::digest(&certificates[0]));
        Ok(Self { pem, fingerprint, issuer: Issuer::new(params, key) })
    }

    /// Its certificate, in PEM. Public.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of its certificate, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// How peers know the supervised nats-server.
    pub fn nats_trust(&self) -> TlsTrust {
        TlsTrust { ca: self.pem.clone(), name: Some(NATS_NAME.into()) }
    }

    /// A new key and its certificate for these names and addresses.
    ///
    /// # Errors
    /// When a name is none.
    pub fn certify(&self, names: Vec<String>, now: i64) -> Result<Certified, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names)?;
        limit(&mut params, now, LIFETIME);
        params.distinguished_name = name("Lattice server");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Certified { certificate, key: key.serialize_pem() })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Of the authority's own certificate. Its name is the same at each start: certificates name their issuer by it.
fn params(now: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    limit(&mut params, now, CA_LIFETIME);
    params.distinguished_name = name("Lattice control plane");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Valid from a little before `now` on, for `lifetime` seconds.
fn limit(params: &mut CertificateParams, now: i64, lifetime: u64) {
    let now = u64::try_from(now).unwrap_or(0);
    let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = at(now.saturating_sub(BACKDATED));
    params.not_after = at(now.saturating_add(lifetime));
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

    use super::*;

    #[test]
    fn it_survives_a_restart_and_is_private() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let first = Authority::load(&dir, 1_800_000_000).unwrap();
        let again = Authority::load(&dir, 1_900_000_000).unwrap();
        assert_eq!(first.pem(), again.pem());
        assert_eq!(first.fingerprint(), again.fingerprint());
        for name in [CA_KEY, CA_CERTIFICATE] {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(dir.join(name).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        let made = again.certify(vec![NATS_NAME.into(), "127.0.0.1".into()], 1_900_000_000).unwrap();
        assert!(trust::certificates(&made.certificate).is_ok());
        assert!(PrivateKeyDer::from_pem_slice(made.key.as_bytes()).is_ok());
        assert!(again.certify(vec!["no name\u{e9}".into()], 0).is_err());
        dir.write(CA_KEY, b"something else").unwrap();
        assert!(matches!(Authority::load(&dir, 0), Err(TlsError::DataDir(DataDirError::Damaged { .. }))));
    }
}
