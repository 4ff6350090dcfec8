//! `GET /api/v1/signaling`: where NATS is, and a user for one enrolment.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
};
use lattice_wire::message::Signaling;

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
    Ok(Json(Signaling { nats_url, bootstrap, nats_tls: None }))
}
