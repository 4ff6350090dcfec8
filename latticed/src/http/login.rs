//! `POST /api/v1/login` and `GET /api/v1/whoami`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use lattice_wire::AdminToken;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Api,
    access::Caller,
    admin_tokens::{Created, View, checked_name, row_of},
    error::ApiError,
    extract::Body,
};
use crate::{app::now, keys::random, store::admin_tokens::Exchange};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// For whom the API token is; shown in lists.
    name: String,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<Login>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    let Caller::OneTime(one_time) = &caller else { return Err(ApiError::internal()) };
    let name = checked_name(&request.name)?;
    let (token, now) = (AdminToken::from_random(random(), random()), now());
    let new =
        Exchange { id: token.id().to_owned(), name, secret_hash: token.secret_hash(), expires_at: None };
    let made = api.app.store.exchange_one_time(one_time.id(), &one_time.secret_hash(), new, now).await?;
    let row = made.ok_or_else(|| {
        ApiError::unauthorized(
            "this is no one-time admin token, or it was used or has expired: make one with `latticed admin-token`",
        )
    })?;
    api.event("admin.login", None, &caller, format!("made la-{} ({})", row.id, row.name)).await;
    Ok((StatusCode::CREATED, Json(Created::new(&token, row))))
}

pub(super) async fn whoami(caller: Caller) -> Result<Json<View>, ApiError> {
    Ok(Json(row_of(&caller)?.clone().into()))
}
