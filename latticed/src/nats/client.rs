//! latticed's own connections to NATS. They outlive restarts of the server.

use std::{path::Path, sync::Arc, time::Duration};

use async_nats::{AuthError, Client, ConnectError, ConnectErrorKind, ConnectOptions, Event};
use lattice_wire::message::TlsTrust;
use nkeys::KeyPair;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{Issuer, NatsError, NatsUrl, issuer};

/// Requests that may wait per subscription. More are dropped: at [`super::MAX_PEER_PAYLOAD`] each they would fill the
/// memory, and peers ask again.
const SUBSCRIPTION_CAPACITY: usize = 2048;
/// Messages of ours that may wait for the server. One may be as big as a network map: more would fill the memory while the
/// server is away, and whoever publishes waits instead.
const CLIENT_CAPACITY: usize = 64;
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// How often the first connection is tried. On a busy host a handshake may take longer than server or client wait for it.
const ATTEMPTS: u32 = 5;
/// After the first attempt; each wait is twice the one before.
const ATTEMPT_WAIT: Duration = Duration::from_millis(100);

/// Who connects.
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) key: KeyPair,
    pub(super) jwt: String,
}

/// Connects with every right in the account. With `tls`, to a server that it certifies and to no other. `config` is named when the
/// server does not let us in.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub async fn connect(
    issuer: &Issuer,
    url: &NatsUrl,
    tls: Option<&TlsTrust>,
    config: &Path,
    now: i64,
) -> Result<Client, NatsError> {
    let key = issuer::new_user()?;
    let jwt = issuer.service(&key, now)?;
    let options = options(User { name: "latticed", key, jwt }, tls)?
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(CLIENT_CAPACITY)
        .event_callback(|event| async move { report(&event) });
    open(options, url, config).await
}

/// What all connections of ours have in common.
pub(super) fn options(user: User, tls: Option<&TlsTrust>) -> Result<ConnectOptions, NatsError> {
    let key = Arc::new(user.key);
    let options = ConnectOptions::with_jwt(user.jwt, move |nonce| {
        let key = Arc::clone(&key);
        async move { key.sign(&nonce).map_err(AuthError::new) }
    })
    .name(user.name)
    .no_echo()
    .connection_timeout(Duration::from_secs(15))
    .reconnect_delay_callback(|attempt| {
        RECONNECT_MAX.min(Duration::from_millis(50).saturating_mul(attempt.try_into().unwrap_or(u32::MAX)))
    });
    Ok(match tls {
        Some(trust) => options.require_tls(true).tls_client_config(trust.client_config()?),
        None => options,
    })
}

/// Connects for the first time, in at most [`ATTEMPTS`]. What another attempt would not change is not tried again.
pub(super) async fn open(options: ConnectOptions, url: &NatsUrl, config: &Path) -> Result<Client, NatsError> {
    let mut attempts = 1;
    loop {
        let error = match options.clone().connect(url.addresses()).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        if attempts == ATTEMPTS || is_final(&error) {
            let (url, config) = (url.to_string(), config.to_owned());
            return Err(NatsError::Connect { url, config, attempts, source: error });
        }
        warn!(%error, attempts, "cannot connect to NATS yet; trying again");
        sleep(ATTEMPT_WAIT * 2_u32.pow(attempts - 1)).await;
        attempts += 1;
    }
}

/// Whether the server said who we are not, or could not prove who it is.
fn is_final(error: &ConnectError) -> bool {
    use ConnectErrorKind::{Authentication, AuthorizationViolation, ServerParse};
    matches!(error.kind(), Authentication | AuthorizationViolation | ServerParse)
        || error.to_string().contains("certificate")
}

fn report(event: &Event) {
    match event {
        Event::Connected => info!("connected to NATS"),
        Event::Disconnected => warn!("connection to NATS lost; reconnecting"),
        Event::SlowConsumer(_) => warn!("requests arrive faster than they are answered; some were dropped"),
        Event::ServerError(error) => warn!(%error, "NATS server reports an error"),
        Event::ClientError(error) => warn!(%error, "NATS client reports an error"),
        Event::LameDuckMode | Event::Draining | Event::Closed => debug!(%event, "NATS"),
    }
}
