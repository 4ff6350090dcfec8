//! The control plane over HTTP: how it is known, and where it says that NATS is.

use std::{fs::File, io::Read as _, path::Path, time::Duration};

use lattice_wire::{message::Signaling, trust};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::{Failure, Kind, failure::chain};

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BODY: u64 = 64 * 1024;
const FORM: &str = "expected http://host:port, https://host:port or https://host:port#sha256:<64 hexadecimal digits>, as latticed prints it at its start";

/// A control plane's address and whom its certificate must come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    base: String,
    trust: Trust,
}

/// Whom the server's certificate must come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trust {
    /// An authority that everybody trusts; or nobody, by plain HTTP.
    Public,
    /// The authority whose certificate has this SHA-256. The server itself says which one that is.
    Pinned([u8; 32]),
    /// The authority in this PEM.
    Authority(String),
}

impl ServerUrl {
    /// Reads `--server-url`, and `--server-ca` where it is given.
    ///
    /// # Errors
    /// When the URL is none, or the file does not hold a certificate.
    pub fn parse(text: &str, ca_file: Option<&Path>) -> Result<Self, Failure> {
        let usage = |what: &str| Failure::new(Kind::Usage, format!("--server-url {text:?} {what}: {FORM}"));
        let (base, pin) = match text.split_once('#') {
            Some((base, pin)) => (base, Some(pin)),
            None => (text, None),
        };
        let base = base.trim_end_matches('/').to_owned();
        let is_https = base.starts_with("https://");
        let rest = base.strip_prefix("https://").or(base.strip_prefix("http://"));
        if !rest.is_some_and(is_plain) {
            return Err(usage("is not a URL"));
        }
        if !is_https && (pin.is_some() || ca_file.is_some()) {
            return Err(usage(
                "proves nothing of the server, so a fingerprint or --server-ca needs https://",
            ));
        }
        let trust = match (pin, ca_file) {
            (Some(_), Some(_)) => return Err(usage("has a fingerprint already, without --server-ca")),
            (Some(pin), None) => Trust::Pinned(
                pin.strip_prefix("sha256:").and_then(digest).ok_or_else(|| usage("has no fingerprint"))?,
            ),
            (None, Some(file)) => Trust::Authority(read(file)?),
            (None, None) => Trust::Public,
        };
        Ok(Self { base, trust })
    }

    /// With the authority that was pinned when the peer enrolled, unless this names one itself.
    #[must_use]
    pub(crate) fn or_authority(mut self, pem: Option<&str>) -> Self {
        if let (Trust::Public, Some(pem)) = (&self.trust, pem)
            && self.base.starts_with("https://")
        {
            self.trust = Trust::Authority(pem.to_owned());
        }
        self
    }

    /// Whether nothing proves who answers: plain HTTP to another host than this one.
    pub fn proves_nothing(&self) -> bool {
        let Some(place) = self.base.strip_prefix("http://") else { return false };
        let place = place.split('/').next().unwrap_or(place);
        let host = match place.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => place.split(':').next().unwrap_or(place),
        };
        host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|host| host.is_loopback())
    }

    /// Scheme, host and port; no slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The PEM of the authority that the server's certificate must come from; none when that is a public one. Blocks, for at most
    /// 5 s: a pinned authority is asked for, over a connection that is not verified and carries no secret.
    ///
    /// # Errors
    /// When the server cannot be reached, or has another authority than the pinned one.
    pub fn authority(&self) -> Result<Option<String>, Failure> {
        let pin = match &self.trust {
            Trust::Public => return Ok(None),
            Trust::Authority(pem) => return Ok(Some(pem.clone())),
            Trust::Pinned(pin) => pin,
        };
        let anyone = TlsConfig::builder().disable_verification(true).build();
        let mut response = self.call(&agent(anyone, TIMEOUT), "/api/v1/ca")?;
        let pem = response.body_mut().with_config().limit(MAX_BODY).read_to_string();
        let pem = pem.map_err(|error| self.fail(&format!("sent no certificate: {error}")))?;
        let all = trust::certificates(&pem).map_err(|_| self.fail("sent no certificate"))?;
        // One alone: what came after it would be trusted unseen.
        let [found] = all.as_slice() else { return Err(self.fail("sent more than its certificate")) };
        let digest: [u8; 32] = Sha256::digest(found).into();
        if digest != *pin {
            let text = format!(
                "{} is not the server that --server-url names: its authority has another SHA-256 than the one after #; nothing was sent to it. If latticed got a new data directory, take the new URL from its start",
                self.base
            );
            return Err(Failure::new(Kind::Server, text));
        }
        Ok(Some(pem))
    }

    /// A client for this server that gives up after `timeout`. Blocks as [`ServerUrl::authority`] does.
    ///
    /// # Errors
    /// As [`ServerUrl::authority`].
    pub fn agent(&self, timeout: Duration) -> Result<ureq::Agent, Failure> {
        Ok(agent(verified(self.authority()?.as_deref())?, timeout))
    }

    fn call(&self, agent: &ureq::Agent, path: &str) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let url = format!("{}{path}", self.base);
        let response = agent.get(url).call().map_err(|error| self.unreachable(&error))?;
        match response.status().as_u16() {
            200 => Ok(response),
            429 => Err(Failure::new(
                Kind::Server,
                format!(
                    "the server {} refuses more requests from this address for now: wait and try again",
                    self.base
                ),
            )),
            status => Err(self.fail(&format!("answered {status} to {path}"))),
        }
    }

    fn get<T: DeserializeOwned>(&self, agent: &ureq::Agent, path: &str) -> Result<T, Failure> {
        let mut response = self.call(agent, path)?;
        let body = response.body_mut().with_config().limit(MAX_BODY).read_json();
        body.map_err(|error| self.fail(&format!("sent an answer that is no Lattice answer: {error}")))
    }

    /// Why no request of an [`ServerUrl::agent`] reached the server, and what to do.
    pub fn unreachable(&self, error: &ureq::Error) -> Failure {
        let reason = chain(error);
        let remedy = if reason.contains("certificate") {
            "who is there cannot prove to be your latticed: give --server-url https://host:port#sha256:… as latticed printed it at its start, or --server-ca"
        } else {
            "is latticed running there, and is --server-url right (http or https)?"
        };
        Failure::new(Kind::Server, format!("cannot reach the server {}: {reason}; {remedy}", self.base))
    }

    fn fail(&self, what: &str) -> Failure {
        let text =
            format!("the server {} {what}; is latticed running there, and is --server-url right?", self.base);
        Failure::new(Kind::Server, text)
    }
}

/// Where NATS is and a credential that may enrol, and the authority of the server that said so. Blocks for at most 10 s.
pub(crate) fn signaling(server: &ServerUrl) -> Result<(Signaling, Option<String>), Failure> {
    let authority = server.authority()?;
    let agent = agent(verified(authority.as_deref())?, TIMEOUT);
    Ok((server.get(&agent, "/api/v1/signaling")?, authority))
}

fn agent(tls: TlsConfig, timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        // latticed sends nobody elsewhere.
        .max_redirects(0)
        .tls_config(tls)
        .build()
        .into()
}

fn verified(authority: Option<&str>) -> Result<TlsConfig, Failure> {
    let Some(pem) = authority else { return Ok(TlsConfig::default()) };
    let all = trust::certificates(pem).map_err(|error| Failure::new(Kind::Credentials, error))?;
    let all: Vec<_> = all.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&all)).build())
}

/// Whether it begins with a host, and holds nothing that a terminal or another reader of URLs would take for something else: no
/// control character, user, password or query.
fn is_plain(behind_scheme: &str) -> bool {
    !behind_scheme.starts_with([':', '/'])
        && !behind_scheme.is_empty()
        && behind_scheme.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '@' | '?' | '\\'))
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    (text.len() == 64 && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

fn read(file: &Path) -> Result<String, Failure> {
    let fail = |what: String| Failure::new(Kind::Usage, format!("--server-ca {}: {what}", file.display()));
    let mut pem = String::new();
    File::open(file)
        .and_then(|file| file.take(MAX_BODY).read_to_string(&mut pem))
        .map_err(|error| fail(format!("cannot be read: {error}")))?;
    trust::certificates(&pem).map_err(|error| fail(error.to_string()))?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_wrong() {
        let Err(failure) = ServerUrl::parse("localhost:8080", None) else { panic!("not a URL") };
        assert_eq!(failure.kind, Kind::Usage);
        let server = ServerUrl::parse("http://127.0.0.1:1/", None).unwrap();
        let Err(failure) = signaling(&server) else { panic!("nobody listens") };
        assert_eq!(failure.kind, Kind::Server);
        assert!(failure.message.contains("http://127.0.0.1:1:"), "{failure}");
    }

    #[test]
    fn a_url_is_a_scheme_and_a_host_and_harmless_to_print() {
        for good in ["http://127.0.0.1:8080", "https://[::1]:1/", "https://host/behind/a/proxy"] {
            assert_eq!(ServerUrl::parse(good, None).unwrap().base(), good.trim_end_matches('/'));
        }
        for bad in [
            "ftp://host",
            "https://",
            "http:///path",
            "http://:80",
            "http://a\x1b[2J",
            "http://a b",
            "http://user:secret@host",
            "https://host?q",
            "https://h\u{f6}st",
        ] {
            let failure = ServerUrl::parse(bad, None).unwrap_err();
            assert!(failure.kind == Kind::Usage && !failure.message.contains('\x1b'), "{bad}: {failure}");
        }
    }

    #[test]
    fn a_fingerprint_is_complete_and_needs_tls() {
        let pin = "ab".repeat(32);
        assert!(ServerUrl::parse(&format!("https://host:1#sha256:{pin}"), None).is_ok());
        for bad in [
            format!("http://host:1#sha256:{pin}"),
            format!("https://host:1#{pin}"),
            format!("https://host:1#sha256:{}", &pin[1..]),
            format!("https://host:1#sha256:{}g", &pin[1..]),
            "https://host:1#".into(),
        ] {
            let failure = ServerUrl::parse(&bad, None).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage, "{bad}: {failure}");
        }
        let missing = ServerUrl::parse("https://host", Some(Path::new("/nonexistent"))).unwrap_err();
        assert!(missing.message.contains("--server-ca /nonexistent"), "{missing}");
    }

    #[test]
    fn what_was_pinned_at_the_enrolment_holds_unless_the_url_says_more() {
        let plain = ServerUrl::parse("http://host", None).unwrap();
        assert_eq!(plain.clone().or_authority(Some("pem")), plain);
        let public = ServerUrl::parse("https://host", None).unwrap();
        assert_eq!(public.clone().or_authority(None), public);
        assert_eq!(public.or_authority(Some("pem")).authority().unwrap().as_deref(), Some("pem"));
        let pinned = ServerUrl::parse(&format!("https://host#sha256:{}", "0".repeat(64)), None).unwrap();
        assert_eq!(pinned.clone().or_authority(Some("pem")), pinned);
    }

    #[test]
    fn plain_http_to_another_host_proves_nothing() {
        let proves_nothing = |text| ServerUrl::parse(text, None).unwrap().proves_nothing();
        for unproven in ["http://192.0.2.1:8080", "http://latticed.example.com/x", "http://[2001:db8::1]:80"]
        {
            assert!(proves_nothing(unproven), "{unproven}");
        }
        for proven in
            ["http://127.0.0.1:8080", "http://[::1]:80", "http://localhost", "https://192.0.2.1:8080"]
        {
            assert!(!proves_nothing(proven), "{proven}");
        }
    }
}
