//! The HTTP API: `/healthz` and signaling for everybody, the rest for the holder of the admin token.

mod auth;
mod connections;
mod error;
mod extract;
mod health;
mod host;
mod peers;
mod signaling;
mod throttle;
mod time;
mod tokens;
mod workspaces;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{delete, get},
};

pub use connections::serve;
use error::ApiError;
use lattice_wire::message::TlsTrust;

use crate::{app::App, keys::AdminToken, limit::RateLimiter};

const MAX_BODY: usize = 16 << 10;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// What one address may ask without the admin token, in a row and per second: room for a rack of hosts behind one NAT
/// that start together.
const STRANGER_BURST: u32 = 256;
const STRANGER_PER_SECOND: u32 = 20;
const STRANGERS: usize = 20_000;

/// What the handlers need.
#[derive(Debug)]
pub struct Api {
    app: Arc<App>,
    admin: AdminToken,
    nats: NatsLocation,
    nats_tls: Option<TlsTrust>,
    ca: String,
    strangers: RateLimiter<IpAddr>,
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
    pub fn new(
        app: Arc<App>,
        admin: AdminToken,
        nats: NatsLocation,
        nats_tls: Option<TlsTrust>,
        ca: String,
    ) -> Self {
        let strangers = RateLimiter::new(STRANGER_BURST, STRANGER_PER_SECOND, STRANGERS);
        Self { app, admin, nats, nats_tls, ca, strangers }
    }
}

/// Every route.
pub fn router(api: Arc<Api>) -> Router {
    let admin = Router::new()
        .route("/api/v1/workspaces", get(workspaces::list).post(workspaces::create))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/api/v1/tokens/{id}", delete(tokens::revoke))
        .route("/api/v1/peers", get(peers::list))
        .route("/api/v1/peers/{id}", delete(peers::remove))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), auth::require_admin));
    let open = Router::new()
        .route("/healthz", get(health::get))
        .route("/api/v1/signaling", get(signaling::get))
        .route("/api/v1/ca", get(signaling::ca))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), throttle::strangers));
    open.merge(admin)
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
