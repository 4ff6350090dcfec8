//! A [`TlsTrust`] in the form that TLS clients need.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    version::TLS13,
};

use crate::message::TlsTrust;

/// Largest PEM that is looked at, in bytes.
const MAX_PEM: usize = 64 << 10;

/// Why there is no TLS to be had with a [`TlsTrust`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrust {
    /// The PEM holds no certificate, or one that is none.
    #[error("the certificate authority is not a PEM certificate of at most {MAX_PEM} bytes")]
    Authority,
    /// The name is not one.
    #[error("{0:?} is no name that a certificate can have")]
    Name(String),
}

impl TlsTrust {
    /// A client that accepts certificates of this authority alone: for [`TlsTrust::name`] whatever the URL says, or else for the URL's
    /// host. TLS 1.3 only.
    ///
    /// # Errors
    /// When the authority or the name is malformed.
    pub fn client_config(&self) -> Result<ClientConfig, InvalidTrust> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|_| InvalidTrust::Authority)?;
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|_| InvalidTrust::Authority)?;
        let Some(name) = &self.name else {
            return Ok(builder.with_root_certificates(roots).with_no_client_auth());
        };
        let name = ServerName::try_from(name.clone()).map_err(|_| InvalidTrust::Name(name.clone()))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| InvalidTrust::Authority)?;
        let fixed = Arc::new(FixedName { verifier, name });
        Ok(builder.dangerous().with_custom_certificate_verifier(fixed).with_no_client_auth())
    }
}

/// The certificates in a PEM; one at least.
///
/// # Errors
/// [`InvalidTrust::Authority`].
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, InvalidTrust> {
    if pem.len() > MAX_PEM {
        return Err(InvalidTrust::Authority);
    }
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(InvalidTrust::Authority)
}

/// Verifies as usual, but for a name of its own. A control plane is reached by addresses that its certificate cannot know; its
/// authority signs for nobody else, so one fixed name says all that a host name would.
#[derive(Debug)]
struct FixedName {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for FixedName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    /// Never asked: the client speaks TLS 1.3 only.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_may_come(text in "\\PC{0,100}", body in "[A-Za-z0-9+/=\n]{0,100}") {
            for ca in [text, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"), "x".repeat(MAX_PEM + 1)] {
                let trust = TlsTrust { ca, name: None };
                prop_assert!(trust.client_config().is_err());
            }
        }
    }
}
