//! `GET /metrics`.

use std::{sync::Arc, time::Instant};

use axum::{extract::State, http::header, response::IntoResponse};

use super::{Api, error::ApiError};
use crate::metrics::Observed;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn get(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, ApiError> {
    let begun = Instant::now();
    let counts = api.app.store.peer_counts().await?;
    let observed = Observed {
        online: counts.online,
        offline: counts.offline,
        reserved: counts.reserved,
        nats: api.app.nats_up(),
        store: begun.elapsed(),
    };
    let text = api.app.metrics.text(observed).map_err(|_| ApiError::internal())?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}
