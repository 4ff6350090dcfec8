//! The one HTTP request of phase one: where NATS is.

use std::time::Duration;

use lattice_wire::message::Signaling;

use crate::{Failure, Kind, failure::chain};

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BODY: u64 = 64 * 1024;

/// Asks `server_url` for NATS and a credential that may enrol. Blocks for at most 5 s.
pub(crate) fn signaling(server_url: &str) -> Result<Signaling, Failure> {
    let base = server_url.trim_end_matches('/');
    if !base.starts_with("http://") && !base.starts_with("https://") {
        let text = format!("--server-url {server_url:?} is not a URL: expected http://host:port");
        return Err(Failure::new(Kind::Usage, text));
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into();
    let fail = |text: String| {
        let text = format!("{text}; is latticed running there, and is --server-url right?");
        Failure::new(Kind::Server, text)
    };
    let mut response = agent
        .get(format!("{base}/api/v1/signaling"))
        .call()
        .map_err(|error| fail(format!("cannot reach the server {base}: {}", chain(&error))))?;
    if response.status() == 429 {
        let text =
            format!("the server {base} refuses more requests from this address for now: wait and try again");
        return Err(Failure::new(Kind::Server, text));
    }
    if response.status() != 200 {
        return Err(fail(format!("the server {base} answered {} to /api/v1/signaling", response.status())));
    }
    response
        .body_mut()
        .with_config()
        .limit(MAX_BODY)
        .read_json()
        .map_err(|error| fail(format!("the server {base} sent an answer that is no Lattice answer: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_wrong() {
        let Err(failure) = signaling("localhost:8080") else { panic!("not a URL") };
        assert_eq!(failure.kind, Kind::Usage);
        let Err(failure) = signaling("http://127.0.0.1:1") else { panic!("nobody listens") };
        assert_eq!(failure.kind, Kind::Server);
        assert!(failure.message.contains("http://127.0.0.1:1"), "{failure}");
    }
}
