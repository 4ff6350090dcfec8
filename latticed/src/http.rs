//! The HTTP API. `routes` is the table of all of it and of who may use what, `access` decides, `auth` guards each route;
//! the other files are one noun each.

mod access;
mod admin_tokens;
mod agent_enroll;
mod auth;
mod connections;
mod error;
mod events;
mod explain;
mod extract;
mod health;
mod host;
mod labels;
mod login;
mod metrics;
mod openapi;
mod peers;
mod policies;
mod routes;
mod signaling;
mod throttle;
mod time;
mod tokens;
mod workspaces;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};

pub use connections::serve;
use error::ApiError;
use lattice_wire::message::TlsTrust;
use throttle::Limits;

use crate::app::App;

/// A policy of many rules fits.
const MAX_BODY: usize = 64 << 10;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// What the handlers need.
#[derive(Debug)]
pub struct Api {
    app: Arc<App>,
    nats: NatsLocation,
    nats_tls: Option<TlsTrust>,
    ca: String,
    limits: Limits,
}

/// Where peers are sent for NATS.
#[derive(Debug, Clone)]
pub enum NatsLocation {
    /// To this URL.
    Url(String),
    /// To this port of the host that they reached us at.
    SameHost(u16),
}

impl Api {
    /// What the handlers need: `nats_tls` is how peers know NATS, `ca` the PEM of our authority.
    pub fn new(app: Arc<App>, nats: NatsLocation, nats_tls: Option<TlsTrust>, ca: String) -> Self {
        Self { app, nats, nats_tls, ca, limits: Limits::default() }
    }
}

/// Every route.
pub fn router(api: Arc<Api>) -> Router {
    routes::router(&api)
        .fallback(async || ApiError::not_found("no such route: see the documentation of the HTTP API"))
        .method_not_allowed_fallback(async || ApiError::method())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(frame))
        .with_state(api)
}

/// What holds for every answer: it comes in time, and no cache keeps it.
async fn frame(request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "request took too long").into_response()
        }
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
