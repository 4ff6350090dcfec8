//! The control plane's administration over HTTP.

use std::{fs, io::Read as _, path::Path, time::Duration};

use lattice_bootstrap::{Failure, Kind, ServerUrl};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use ureq::http::{Method, Request};
use zeroize::Zeroizing;

use crate::{
    args::{Admin, Format},
    login::Stored,
    output,
};

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER: u64 = 16 << 20;
const PAGE: usize = 500;
const DEFAULT_SERVER: &str = "http://localhost:8080";

/// An authenticated client.
pub(crate) struct Client {
    server: ServerUrl,
    bearer: Zeroizing<String>,
    agent: ureq::Agent,
}

/// An error answer (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

/// A refusal, and its status.
pub(crate) struct Refused {
    pub(crate) status: u16,
    detail: String,
}

impl Client {
    /// A client with the API token of `--admin-token-file`, of `LATTICE_ADMIN_TOKEN`, or of `lattice login`.
    pub(crate) fn new(admin: &Admin) -> Result<Self, Failure> {
        let given = match (&admin.admin_token_file, std::env::var("LATTICE_ADMIN_TOKEN")) {
            (Some(path), _) => Some(read(path)?),
            (None, Ok(token)) => Some(Zeroizing::new(token)),
            (None, Err(_)) => None,
        };
        if let Some(token) = given {
            let server = admin.server_url.as_deref().unwrap_or(DEFAULT_SERVER);
            return Self::with(server, admin.server_ca.as_deref(), &token);
        }
        let stored = Stored::read()?;
        // A token is for the server that gave it, and for no other.
        if let Some(asked) = &admin.server_url
            && base(asked) != base(&stored.server_url)
        {
            let text = format!(
                "the login is for {}, not for {asked}: run `lattice login --server-url {asked}`, or give --admin-token-file",
                stored.server_url
            );
            return Err(Failure::new(Kind::Privilege, text));
        }
        let ca = admin.server_ca.as_deref().or(stored.server_ca.as_deref());
        Self::with(&stored.server_url, ca, &stored.token)
    }

    /// A client of `server`, certified by the authority in `ca` if that is given, with `token`.
    pub(crate) fn with(server: &str, ca: Option<&Path>, token: &str) -> Result<Self, Failure> {
        let server = ServerUrl::parse(server, ca)?;
        let agent = server.agent(TIMEOUT)?;
        let bearer = Zeroizing::new(format!("Bearer {}", token.trim()));
        Ok(Self { server, bearer, agent })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, Vec::new())
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.call(Method::POST, path, encoded(body)?)
    }

    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.call(Method::PUT, path, encoded(body)?)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.call::<serde::de::IgnoredAny>(Method::DELETE, path, Vec::new()).map(drop)
    }

    /// Every page of a list, in turn.
    pub(crate) fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        workspace: Option<&str>,
        mut each: impl FnMut(Vec<T>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut base = format!("{path}?limit={PAGE}");
        if let Some(workspace) = workspace {
            base.push_str(&format!("&workspace={}", segment(workspace)?));
        }
        let mut after: Option<String> = None;
        loop {
            let asked = match &after {
                Some(key) => format!("{base}&after={}", segment(key)?),
                None => base.clone(),
            };
            let page: Page<T> = self.get(&asked)?;
            let is_empty = page.items.is_empty();
            each(page.items)?;
            // A server that says the same twice, or that more follows on nothing, would keep us for ever.
            if is_empty || page.next.is_none() || page.next == after {
                return Ok(());
            }
            after = page.next;
        }
    }

    /// Prints a list, page by page.
    pub(crate) fn show_list<T: DeserializeOwned + Serialize>(
        &self,
        format: Format,
        path: &str,
        workspace: Option<&str>,
        headings: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        let mut first = true;
        self.pages(path, workspace, |items: Vec<T>| {
            match format {
                Format::Table => {
                    output::rows_under(headings, &items.iter().map(&row).collect::<Vec<_>>(), first)
                }
                Format::Json => {
                    for (n, item) in items.iter().enumerate() {
                        let before = if first && n == 0 { "[" } else { "," };
                        output::print(&format!("{before}{}", json!(item)));
                    }
                }
            }
            first &= items.is_empty();
            Ok(())
        })?;
        if format == Format::Json {
            output::print(if first { "[]" } else { "]" });
        }
        Ok(())
    }

    fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, Failure> {
        match self.ask(method, path, body)? {
            Ok(value) => Ok(value),
            Err(refused) => Err(refused.into_failure()),
        }
    }

    /// The answer to one request, or the server's refusal.
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Result<T, Refused>, Failure> {
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
        if !status.is_success() {
            let detail =
                serde_json::from_slice::<Problem>(&text).map_or_else(|_| status.to_string(), |p| p.detail);
            return Ok(Err(Refused { status: status.as_u16(), detail }));
        }
        let text: &[u8] = if text.is_empty() { b"null" } else { &text };
        let value = serde_json::from_slice(text).map_err(|error| {
            Failure::new(Kind::Server, format!("{} sent no Lattice answer: {error}", self.server.base()))
        })?;
        Ok(Ok(value))
    }
}

impl Refused {
    pub(crate) fn into_failure(self) -> Failure {
        let kind = match self.status {
            401 | 403 => Kind::Privilege,
            409 => Kind::Taken,
            // Too slow, too often: it may be granted later.
            408 | 429 => Kind::Server,
            400..=499 => Kind::Usage,
            _ => Kind::Server,
        };
        Failure::new(kind, self.detail)
    }
}

/// A request's body.
pub(crate) fn encoded(body: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(body).map_err(|error| Failure::new(Kind::Internal, error))
}

/// The token in a file; `-` is stdin.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut token = Zeroizing::new(String::new());
    let result = if path == Path::new("-") {
        std::io::stdin().take(4096).read_to_string(&mut token)
    } else {
        fs::File::open(path).and_then(|file| file.take(4096).read_to_string(&mut token))
    };
    result.map_err(|error| {
        let text = format!(
            "cannot read the token {}: {error}; latticed writes a one-time token to <its --data-dir>/admin-token",
            path.display()
        );
        Failure::new(Kind::Privilege, text)
    })?;
    Ok(token)
}

/// Text that may stand in a URL as it is.
pub(crate) fn segment(text: &str) -> Result<&str, Failure> {
    let plain =
        !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    if plain { Ok(text) } else { Err(Failure::new(Kind::Usage, format!("{text:?} is no name or id"))) }
}

/// The URL without the fingerprint of its authority.
fn base(url: &str) -> &str {
    url.split('#').next().unwrap_or(url).trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_their_place_in_the_url() {
        for bad in ["", "a/b", "..", "a?b", "a b", "a%2f"] {
            assert!(segment(bad).is_err(), "{bad}");
        }
    }
}
