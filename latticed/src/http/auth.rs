//! The token in the `Authorization` header, and the guard that stands before every route.

use std::sync::Arc;

use axum::{
    extract::{Extension, FromRequestParts as _, RawPathParams, Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use lattice_wire::{AdminToken, Token};
use tracing::error;

use super::{
    Api,
    access::{Access, Caller},
    error::ApiError,
    throttle::{self, Remote},
};
use crate::app::now;

/// What the guard knows of the route that it guards.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) api: Arc<Api>,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) access: Access,
}

/// Lets through whom the table of routes admits, with the [`Caller`] in the request's extensions.
pub(super) async fn guard(
    State(post): State<Post>,
    Extension(remote): Extension<Remote>,
    request: Request,
    next: Next,
) -> Response {
    let response = match admit(&post, remote, request).await {
        // A task of its own, so that it goes on to its end: a client that hangs up must not keep what it did from being written down
        // and told to peers. It ends at the latest with the connection, which is where the body comes from.
        Ok(request) => match tokio::spawn(next.run(request)).await {
            Ok(response) => response,
            Err(failed) => {
                error!(%failed, path = post.path, "request failed");
                ApiError::internal().into_response()
            }
        },
        Err(error) => error.into_response(),
    };
    post.api.app.metrics.request(post.method, post.path, response.status().as_u16());
    response
}

async fn admit(post: &Post, remote: Remote, request: Request) -> Result<Request, ApiError> {
    let api = &post.api;
    if post.access.counts_everybody() {
        throttle::address(api, remote)?;
    }
    let caller = match bearer(request.headers()) {
        None => Caller::Stranger,
        // An open route needs no token, so a wrong one does not close it.
        Some(_) if matches!(post.access, Access::Open | Access::Probe) => Caller::Stranger,
        Some(text) if post.access == Access::OneTime => one_time(text)?,
        Some(text) => known(api, remote, text).await?,
    };
    let (mut parts, body) = request.into_parts();
    let params = RawPathParams::from_request_parts(&mut parts, &()).await;
    let params = params.map_err(|_| ApiError::invalid("the path is not UTF-8"))?;
    let peer = params.iter().find(|(name, _)| *name == "id").map(|(_, value)| value);
    let local = remote.0.to_canonical().is_loopback() && !is_forwarded(&parts.headers);
    if let Err(refused) = post.access.decide(&caller, local, peer) {
        if matches!(caller, Caller::Stranger) {
            throttle::address(api, remote)?;
        }
        return Err(refused);
    }
    parts.extensions.insert(caller);
    Ok(Request::from_parts(parts, body))
}

fn one_time(text: &str) -> Result<Caller, ApiError> {
    let token = text.parse::<AdminToken>().map_err(|e| ApiError::unauthorized(e.to_string()))?;
    Ok(Caller::OneTime(Arc::new(token)))
}

/// Whose token it is. A token that is not known, revoked or over is nobody's.
async fn known(api: &Api, remote: Remote, text: &str) -> Result<Caller, ApiError> {
    if let Ok(token) = text.parse::<AdminToken>() {
        let row = api.app.store.admin_bearer(token.id(), &token.secret_hash(), now()).await?;
        return match row {
            Some(row) => Ok(Caller::Admin(Arc::new(row))),
            None => Err(refused(api, remote, token.id())?),
        };
    }
    if let Ok(token) = text.parse::<Token>() {
        return match api.app.store.bearer(&token, now()).await? {
            Some(row) => {
                throttle::address(api, remote)?;
                throttle::token(api, token.id(), true)?;
                Ok(Caller::Enrollment(Arc::new((token, row))))
            }
            None => Err(refused(api, remote, token.id())?),
        };
    }
    throttle::address(api, remote)?;
    Err(ApiError::unauthorized(
        "this is no token: expected la-… (`lattice login`) or lt-… (`lattice token create`)",
    ))
}

/// The answer to a token that is nobody's; an error when it came too often.
fn refused(api: &Api, remote: Remote, id: &str) -> Result<ApiError, ApiError> {
    throttle::address(api, remote)?;
    throttle::token(api, id, false)?;
    Ok(ApiError::unauthorized(
        "this token is not known here, was used up, was revoked or has expired: log in again with `lattice login`, \
         after `latticed admin-token` where no login is left",
    ))
}

/// Whether a proxy says that it asks for somebody else.
fn is_forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "via", "x-forwarded-for", "x-real-ip"].into_iter().any(|name| headers.contains_key(name))
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
