//! The control plane's administration over HTTP.

use std::{fs, io::Read as _, time::Duration};

use lattice_bootstrap::{Failure, Kind, ServerUrl};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use ureq::http::{Method, Request};
use zeroize::Zeroizing;

use crate::args::Admin;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER: u64 = 16 << 20;

/// An authenticated client.
pub(crate) struct Client {
    server: ServerUrl,
    bearer: Zeroizing<String>,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Refused {
    error: Reason,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

impl Client {
    /// A client with the admin token of `admin`, or the one in `LATTICE_ADMIN_TOKEN`.
    pub(crate) fn new(admin: &Admin) -> Result<Self, Failure> {
        let token = match std::env::var("LATTICE_ADMIN_TOKEN") {
            Ok(token) => Zeroizing::new(token),
            Err(_) => read(admin)?,
        };
        let server = ServerUrl::parse(&admin.server_url, admin.server_ca.as_deref())?;
        let agent = server.agent(TIMEOUT)?;
        let bearer = Zeroizing::new(format!("Bearer {}", token.trim()));
        Ok(Self { server, bearer, agent })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, Vec::new())
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::new(Kind::Internal, error))?;
        self.call(Method::POST, path, body)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.call::<serde::de::IgnoredAny>(Method::DELETE, path, Vec::new()).map(drop)
    }

    fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server.base()))
            .header("Authorization", self.bearer.as_str())
            .header("Content-Type", "application/json")
            .body(body)
            .map_err(|error| {
                Failure::new(Kind::Usage, format!("--server-url {:?}: {error}", self.server.base()))
            })?;
        let mut response = self.agent.run(request).map_err(|error| self.server.unreachable(&error))?;
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(|error| Failure::new(Kind::Server, format!("{}: {error}", self.server.base())))?;
        if status.is_success() {
            let text: &[u8] = if text.is_empty() { b"null" } else { &text };
            return serde_json::from_slice(text).map_err(|error| {
                Failure::new(Kind::Server, format!("{} sent no Lattice answer: {error}", self.server.base()))
            });
        }
        let reason =
            serde_json::from_slice::<Refused>(&text).map_or_else(|_| status.to_string(), |r| r.error.message);
        Err(match status.as_u16() {
            401 | 403 => Failure::new(
                Kind::Privilege,
                format!("{reason}; give --admin-token-file the file in latticed's data directory"),
            ),
            409 => Failure::new(Kind::Taken, reason),
            400..=499 => Failure::new(Kind::Usage, reason),
            _ => Failure::new(Kind::Server, reason),
        })
    }
}

fn read(admin: &Admin) -> Result<Zeroizing<String>, Failure> {
    let path = &admin.admin_token_file;
    let mut token = Zeroizing::new(String::new());
    fs::File::open(path).and_then(|file| file.take(4096).read_to_string(&mut token)).map_err(|error| {
        let text = format!(
            "cannot read the admin token {}: {error}; give --admin-token-file <latticed's --data-dir>/admin-token, or LATTICE_ADMIN_TOKEN",
            path.display()
        );
        Failure::new(Kind::Privilege, text)
    })?;
    Ok(token)
}
