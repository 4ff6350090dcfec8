//! Every error answer: `application/problem+json` (RFC 9457) with the status that fits.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use tracing::error;

use crate::store::StoreError;

/// When to ask again after what may be over soon.
const UNAVAILABLE_SECS: u64 = 5;

/// An error answer.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    header: Option<(header::HeaderName, HeaderValue)>,
}

/// Why a request was refused (RFC 9457).
#[derive(Serialize, JsonSchema)]
pub(super) struct Problem {
    /// `urn:lattice:problem:` and the code.
    r#type: String,
    /// What the status means.
    title: String,
    /// The HTTP status.
    status: u16,
    /// For people: what failed, on what, what to do.
    detail: String,
    /// For programs.
    code: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), header: None }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(super) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route has no such method")
    }

    /// Worth trying again, a little later.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self {
            header: Some((header::RETRY_AFTER, UNAVAILABLE_SECS.into())),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
        }
    }

    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "latticed failed; its log says how")
    }

    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self {
            header: Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        }
    }

    pub(super) fn rate_limited(whose: &str, wait: std::time::Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        Self {
            header: Some((header::RETRY_AFTER, seconds.into())),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                format!("too many requests {whose}: wait {seconds} s"),
            )
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        error!(%error, "request failed");
        match error {
            StoreError::Away(_) => {
                Self::unavailable("the database does not answer: try again; the log of latticed says why")
            }
            StoreError::Full(_) => {
                Self::unavailable("the database takes nothing more: make room on its disk")
            }
            _ => Self::internal(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = Problem {
            r#type: format!("urn:lattice:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code.to_owned(),
        };
        let mut response = (self.status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        response
    }
}
