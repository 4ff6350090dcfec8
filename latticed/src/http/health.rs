//! `GET /healthz` and `GET /readyz`.

use std::sync::Arc;

use axum::{Json, extract::State};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, error::ApiError};

/// That all is well; what is not is an error answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    status: &'static str,
}

const OK: Json<Health> = Json(Health { status: "ok" });

/// Whether the process lives: it is asked whether to restart it, which mends no database.
pub(super) async fn live() -> Json<Health> {
    OK
}

/// Whether a peer could enrol now.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Result<Json<Health>, ApiError> {
    if !api.app.store.ping().await {
        return Err(ApiError::unavailable("the database does not answer; the log of latticed says why"));
    }
    if !api.app.nats_up() {
        return Err(ApiError::unavailable("NATS is not connected; the log of latticed says why"));
    }
    Ok(OK)
}
