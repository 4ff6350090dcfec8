//! `/api/v1/admin-tokens`: the API tokens. One is shown once, when it is made, and is never wider than its maker's.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use lattice_wire::{AdminToken, WorkspaceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    access::Caller,
    error::ApiError,
    extract::{Body, Listed, Page, Params},
    time::{rfc3339, seconds},
    workspaces,
};
use crate::{
    app::now,
    keys::random,
    store::admin_tokens::{AdminRow, NewAdminToken, Role},
};

const MAX_NAME: usize = 100;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    /// For whom it is; shown in lists.
    name: String,
    role: Role,
    /// Name or id of the only workspace that it is for; without it, that of the caller's own token.
    workspace: Option<String>,
    /// How long it is valid: `90s`, `15m`, `1h`, `7d`; without it, as long as the caller's own, or until it is revoked.
    ttl: Option<String>,
}

/// An API token, without its secret.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    id: String,
    name: String,
    role: Role,
    /// The only workspace that it is for; null: all.
    #[schemars(with = "Option<String>")]
    workspace: Option<WorkspaceId>,
    /// Whether a login consumes it.
    one_time: bool,
    created_at: String,
    created_by: String,
    expires_at: Option<String>,
    revoked: bool,
}

/// A new API token.
#[derive(Serialize, JsonSchema)]
pub(super) struct Created {
    /// The whole token, this once.
    token: String,
    #[serde(flatten)]
    view: View,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<Create>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    let name = checked_name(&request.name)?;
    let own = row_of(&caller)?;
    if request.role > own.role {
        return Err(ApiError::forbidden(format!(
            "your role {} makes no token of a higher one",
            own.role.as_str()
        )));
    }
    // A workspace's administrator names none, or its own: others do not exist for it.
    let workspace = workspaces::filter(&api, &caller, request.workspace.as_deref()).await?;
    let now = now();
    let asked = request.ttl.as_deref().map(|ttl| seconds("ttl", ttl)).transpose()?.map(|ttl| now + ttl);
    // Else who got hold of a token for an hour would stay for ever.
    let expires_at = match (asked, own.expires_at) {
        (Some(asked), Some(end)) if asked > end => {
            return Err(ApiError::forbidden(format!(
                "your own token ends at {}, and makes none that lives longer",
                rfc3339(end)
            )));
        }
        (asked, end) => asked.or(end),
    };
    let token = AdminToken::from_random(random(), random());
    let new = NewAdminToken {
        id: token.id().to_owned(),
        name,
        secret_hash: token.secret_hash(),
        role: request.role,
        workspace,
        one_time: false,
        expires_at,
        created_by: caller.actor(),
    };
    let row = api.app.store.create_admin_token(&new, now).await?;
    let detail = format!("made la-{} ({}, {})", row.id, row.name, row.role.as_str());
    api.event("admin_token.created", row.workspace.as_ref(), &caller, detail).await;
    Ok((StatusCode::CREATED, Json(Created::new(&token, row))))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(page): Params<Page>,
) -> Result<Json<Listed<View>>, ApiError> {
    let page = page.checked()?;
    let rows = api.app.store.admin_tokens(caller.scope(), &page).await?;
    Ok(Listed::of(rows, &page, |row| row.id.clone()))
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let own = row_of(&caller)?;
    let mut workspace = own.workspace.clone();
    let unknown = || ApiError::not_found("no such API token: list them with GET /api/v1/admin-tokens");
    if own.id != id {
        if own.role < Role::Admin {
            return Err(ApiError::forbidden(
                "this needs the role admin: without it, a token revokes itself only",
            ));
        }
        let row = api.app.store.admin_token(&id).await?.ok_or_else(unknown)?;
        // Those of all workspaces are beyond a workspace's administrator.
        if own.workspace.is_some() && row.workspace != own.workspace {
            return Err(unknown());
        }
        workspace = row.workspace;
    }
    if !api.app.store.revoke_admin_token(&id, now()).await? {
        return Err(unknown());
    }
    api.event("admin_token.revoked", workspace.as_ref(), &caller, format!("la-{id}")).await;
    Ok(StatusCode::NO_CONTENT)
}

/// The API token of a caller that the table of routes lets in with nothing else.
pub(super) fn row_of(caller: &Caller) -> Result<&AdminRow, ApiError> {
    match caller {
        Caller::Admin(row) => Ok(row),
        _ => Err(ApiError::internal()),
    }
}

/// The name of a token: a line that people read.
pub(super) fn checked_name(name: &str) -> Result<String, ApiError> {
    let fits = (1..=MAX_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if fits {
        Ok(name.to_owned())
    } else {
        Err(ApiError::invalid("name must be 1 to 100 printable characters"))
    }
}

impl Created {
    pub(super) fn new(token: &AdminToken, row: AdminRow) -> Self {
        Self { token: token.expose(), view: row.into() }
    }
}

impl From<AdminRow> for View {
    fn from(row: AdminRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            role: row.role,
            workspace: row.workspace,
            one_time: row.one_time,
            created_at: rfc3339(row.created_at),
            created_by: row.created_by,
            expires_at: row.expires_at.map(rfc3339),
            revoked: row.revoked_at.is_some(),
        }
    }
}
