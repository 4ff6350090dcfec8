//! latticed's own connection to NATS. It outlives restarts of the server.

use std::{path::Path, sync::Arc, time::Duration};

use async_nats::{AuthError, Client, ConnectOptions, Event};
use tracing::{debug, info, warn};

use super::{Issuer, NatsError, NatsUrl, issuer};

/// Requests that may wait per subscription. More are dropped: at [`super::MAX_PEER_PAYLOAD`] each they would fill the
/// memory, and peers ask again.
const SUBSCRIPTION_CAPACITY: usize = 2048;
/// Messages of ours that may wait for the server. One may be as big as a network map: more would fill the memory while the
/// server is away, and whoever publishes waits instead.
const CLIENT_CAPACITY: usize = 64;
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// Connects with every right in the account. `config` is named when the server does not let us in.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub async fn connect(issuer: &Issuer, url: &NatsUrl, config: &Path, now: i64) -> Result<Client, NatsError> {
    let key = Arc::new(issuer::new_user()?);
    let jwt = issuer.service(&key, now)?;
    ConnectOptions::with_jwt(jwt, move |nonce| {
        let key = Arc::clone(&key);
        async move { key.sign(&nonce).map_err(AuthError::new) }
    })
    .name("latticed")
    .no_echo()
    .subscription_capacity(SUBSCRIPTION_CAPACITY)
    .client_capacity(CLIENT_CAPACITY)
    .connection_timeout(Duration::from_secs(5))
    .reconnect_delay_callback(|attempt| {
        RECONNECT_MAX.min(Duration::from_millis(50).saturating_mul(attempt.try_into().unwrap_or(u32::MAX)))
    })
    .event_callback(|event| async move { report(&event) })
    .connect(url.address())
    .await
    .map_err(|source| NatsError::Connect { url: url.to_string(), config: config.to_owned(), source })
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
