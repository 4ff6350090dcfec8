//! axum's extractors with our form of error, and what requests have in common.

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, request::Parts},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{access::Caller, error::ApiError};
use crate::store;

/// Its name.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Bytes of one.
pub(super) const MAX_KEY: usize = 255;
const MAX_LIMIT: u32 = 1000;
/// Of the keys that lists are ordered by, none is as long.
const MAX_AFTER: usize = 200;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

/// The header by which a client says that a request is one that it sent before (draft-ietf-httpapi-idempotency-key-header).
pub(super) struct Key(pub(super) Option<String>);

/// A query string.
pub(super) struct Params<T>(pub(super) T);

/// Which part of a list.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// At most so many items: 1 to 1000.
    #[serde(default = "hundred")]
    limit: u32,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Which part of the list of one workspace, or of all that the caller sees.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Name or id of a workspace.
    pub(super) workspace: Option<String>,
    /// At most so many items: 1 to 1000.
    #[serde(default = "hundred")]
    limit: u32,
    /// The `next` of the page before.
    after: Option<String>,
}

/// In which workspace a name is meant.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InWorkspace {
    /// Name or id of a workspace.
    pub(super) workspace: String,
}

/// A page of a list.
#[derive(Serialize, JsonSchema)]
pub(super) struct Listed<T> {
    items: Vec<T>,
    /// Give this as `after` to get what follows; null at the end.
    next: Option<String>,
}

impl Page {
    /// As the store takes it.
    pub(super) fn checked(self) -> Result<store::Page, ApiError> {
        if !(1..=MAX_LIMIT).contains(&self.limit) {
            return Err(ApiError::invalid(format!("limit must lie between 1 and {MAX_LIMIT}")));
        }
        if self.after.as_ref().is_some_and(|after| after.len() > MAX_AFTER) {
            return Err(ApiError::invalid("after must be the `next` of a page"));
        }
        Ok(store::Page { after: self.after, limit: self.limit })
    }
}

impl Filter {
    /// The workspace, and the page as the store takes it.
    pub(super) fn checked(self) -> Result<(Option<String>, store::Page), ApiError> {
        let page = Page { limit: self.limit, after: self.after }.checked()?;
        Ok((self.workspace, page))
    }
}

impl<T> Listed<T> {
    /// The answer to a request for `page`, of which the store returned `rows`: one more than asked for when there are more.
    pub(super) fn of<R: Into<T>>(
        mut rows: Vec<R>,
        page: &store::Page,
        key: impl Fn(&R) -> String,
    ) -> Json<Self> {
        let limit = page.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(key) } else { None };
        Json(Self { items: rows.into_iter().map(R::into).collect(), next })
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => {
                let code = match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => "too_large",
                    _ => "invalid",
                };
                Err(ApiError::new(rejection.status(), code, rejection.body_text()))
            }
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::invalid(rejection.body_text())),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut keys = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = keys.next() else { return Ok(Self(None)) };
        let key = key.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len()) && keys.next().is_none());
        let key = key.ok_or_else(|| {
            ApiError::invalid(format!(
                "Idempotency-Key must be given once, as 1 to {MAX_KEY} characters of ASCII"
            ))
        })?;
        Ok(Self(Some(key.to_owned())))
    }
}

/// Put there by the guard.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(ApiError::internal)
    }
}

fn hundred() -> u32 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_begins() {
        let page = |limit| Page { limit, after: None }.checked();
        let two = page(2).unwrap_or_else(|_| unreachable!());
        let of = |rows: Vec<u32>| Listed::<u64>::of(rows, &two, u32::to_string).0;
        assert_eq!((of(vec![1, 2, 3]).items, of(vec![1, 2, 3]).next), (vec![1, 2], Some("2".into())));
        assert_eq!((of(vec![1, 2]).items, of(vec![1, 2]).next), (vec![1, 2], None));
        assert_eq!(of(vec![]).next, None);
        assert!(page(0).is_err() && page(MAX_LIMIT + 1).is_err() && page(MAX_LIMIT).is_ok());
    }
}
