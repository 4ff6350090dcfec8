//! Slows down addresses that ask too much without being known.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    extract::{Extension, Request, State},
    middleware::Next,
    response::Response,
};

use super::{Api, error::ApiError};
use crate::limit::remote_key;

/// The address at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote(pub(super) IpAddr);

/// Counts every request.
pub(super) async fn strangers(
    State(api): State<Arc<Api>>,
    Extension(remote): Extension<Remote>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    count(&api, remote)?;
    Ok(next.run(request).await)
}

/// Counts one request of `remote`.
pub(super) fn count(api: &Api, remote: Remote) -> Result<(), ApiError> {
    api.strangers.take(&remote_key(remote.0), Instant::now()).map_err(ApiError::rate_limited)
}
