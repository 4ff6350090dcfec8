//! `GET /api/v1/signaling`: where NATS is, and a user for one enrolment. `GET /api/v1/ca`: who certifies latticed.
//! `GET /api/v1/relay-key`: who signs the tokens that peers show to relays.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};
use lattice_wire::message::Signaling;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, NatsLocation, error::ApiError, host::host_of};
use crate::app::now;

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<Json<Signaling>, ApiError> {
    let nats_url = match &api.nats {
        NatsLocation::Url(url) => url.clone(),
        NatsLocation::SameHost(port) => {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(host_of);
            let host = host.ok_or_else(|| {
                ApiError::invalid(
                    "the Host header does not name this server: use its name or address in the URL",
                )
            })?;
            format!("nats://{host}:{port}")
        }
    };
    let bootstrap = api.app.issuer.bootstrap(now()).map_err(|error| {
        tracing::error!(%error, "bootstrap user could not be made");
        ApiError::internal()
    })?;
    Ok(Json(Signaling { nats_url, bootstrap, nats_tls: api.nats_tls.clone() }))
}

/// The public halves of the keys that sign relay tokens: [`lattice_wire::relay_token::RelayKeys`].
#[derive(Serialize, JsonSchema)]
pub(super) struct RelayKeys {
    /// Public nkeys. All of them are to be trusted.
    keys: Vec<String>,
}

pub(super) async fn relay_key(State(api): State<Arc<Api>>) -> Json<RelayKeys> {
    Json(RelayKeys { keys: vec![api.app.issuer.relay_key()] })
}

/// For clients that were given its fingerprint: what comes over an unverified connection is worth nothing without.
pub(super) async fn ca(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/x-pem-file")], api.ca.clone())
}
