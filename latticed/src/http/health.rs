//! `GET /healthz`: whether a peer could enrol now.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{Api, error::ApiError};

pub(super) async fn get(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    if !api.app.store.ping().await {
        return Err(ApiError::unavailable("the database does not answer; the log of latticed says why"));
    }
    if !api.app.nats_up() {
        return Err(ApiError::unavailable("NATS is not connected; the log of latticed says why"));
    }
    Ok(Json(json!({"status": "ok"})))
}
