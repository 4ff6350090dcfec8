//! The admin token in the `Authorization` header.

use std::sync::Arc;

use axum::{
    extract::{Extension, Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};

use super::{
    Api,
    error::ApiError,
    throttle::{self, Remote},
};

/// Lets only the holder of the admin token through. Whoever is not counts as a stranger.
pub(super) async fn require_admin(
    State(api): State<Arc<Api>>,
    Extension(remote): Extension<Remote>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if !bearer(request.headers()).is_some_and(|token| api.admin.matches(token)) {
        throttle::count(&api, remote)?;
        return Err(ApiError::unauthorized());
    }
    Ok(next.run(request).await)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bearer_tokens_only() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer abc").as_deref(), Some("abc"));
        for other in ["abc", "Basic abc", "Bearerabc", ""] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
