//! `/api/v1/tokens`. A token is shown once, when it is created.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use lattice_wire::{Token, WorkspaceId};
use serde::{Deserialize, Serialize};

use super::{
    Api,
    error::ApiError,
    extract::{Body, Params},
    time::rfc3339,
    workspaces,
};
use crate::{
    app::now,
    keys::random,
    store::{
        Page,
        tokens::{NewToken, TokenRow},
    },
};

const MAX_USES: i64 = 100_000;
const MAX_TTL: i64 = 366 * 86_400;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Create {
    workspace: String,
    #[serde(default = "one")]
    uses: i64,
    #[serde(default = "one_day")]
    ttl_seconds: i64,
}

#[derive(Deserialize)]
pub(super) struct Filter {
    workspace: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Created {
    token: String,
    #[serde(flatten)]
    view: View,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    id: String,
    workspace: WorkspaceId,
    uses: i64,
    used: i64,
    created_at: String,
    expires_at: String,
    revoked: bool,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Body(request): Body<Create>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    if !(1..=MAX_USES).contains(&request.uses) {
        return Err(ApiError::invalid(format!("uses must lie between 1 and {MAX_USES}")));
    }
    if !(1..=MAX_TTL).contains(&request.ttl_seconds) {
        return Err(ApiError::invalid(format!("ttlSeconds must lie between 1 and {MAX_TTL}")));
    }
    let workspace = workspaces::named(&api, &request.workspace).await?;
    let (token, now) = (Token::from_random(random(), random()), now());
    let expires_at = now + request.ttl_seconds;
    let new = NewToken {
        workspace: workspace.id,
        max_uses: request.uses,
        expires_at,
        preset: None,
        labels: BTreeMap::new(),
        name_prefix: None,
        peer_ttl: None,
        peer: None,
        created_by: "admin".into(),
    };
    let row = api.app.store.create_token(&token, new, now).await?;
    Ok((StatusCode::CREATED, Json(Created { token: token.expose(), view: row.into() })))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(filter): Params<Filter>,
) -> Result<Json<Vec<View>>, ApiError> {
    let workspace = workspaces::filter(&api, filter.workspace.as_deref()).await?;
    Ok(Json(
        api.app.store.tokens(workspace.as_ref(), &Page::all()).await?.into_iter().map(View::from).collect(),
    ))
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    if api.app.store.revoke_token(&id, now()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found("no such token: list them with GET /api/v1/tokens"))
}

impl From<TokenRow> for View {
    fn from(row: TokenRow) -> Self {
        Self {
            id: row.id,
            workspace: row.workspace,
            uses: row.max_uses,
            used: row.uses,
            created_at: rfc3339(row.created_at),
            expires_at: rfc3339(row.expires_at),
            revoked: row.revoked_at.is_some(),
        }
    }
}

fn one() -> i64 {
    1
}

fn one_day() -> i64 {
    86_400
}
