//! `/api/v1/tokens`. A token is shown once, when it is created.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use lattice_policy::{Labels, Preset};
use lattice_wire::{PeerId, PeerName, Token, WorkspaceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    access::Caller,
    error::ApiError,
    extract::{Body, Filter, Listed, Params},
    time::{LONGEST, rfc3339, seconds},
    workspaces,
};
use crate::{
    app::now,
    keys::random,
    store::tokens::{NewToken, TokenRow},
};

const MAX_USES: i64 = 100_000;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Create {
    /// Name or id of the workspace that it admits to.
    workspace: String,
    /// How many peers it admits: 1 to 100000.
    #[serde(default = "one")]
    uses: i64,
    /// How long it admits.
    #[serde(default = "one_day")]
    ttl_seconds: i64,
    /// The preset of the peers that it admits.
    #[schemars(with = "Option<PresetName>")]
    preset: Option<Preset>,
    /// The labels of the peers that it admits.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    labels: Labels,
    /// The names that it admits begin so.
    name_prefix: Option<String>,
    /// How long a peer that it admits lives unless it is renewed: `90s`, `15m`, `1h`, `7d`.
    peer_ttl: Option<String>,
}

/// The preset policies.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes the names of lattice_policy::Preset")]
pub(super) enum PresetName {
    /// Opens flows to the workspace's tools only; nobody opens one to it.
    Sandboxed,
    /// Opens what policies and flags allow; the workspace's sandboxes may open flows to it.
    Coordinator,
    /// Opens only what a policy names by address and port; nobody opens a flow to it.
    Isolated,
}

/// A new enrollment token.
#[derive(Serialize, JsonSchema)]
pub(super) struct Created {
    /// The whole token, this once.
    token: String,
    #[serde(flatten)]
    view: View,
}

/// An enrollment token, without its secret.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    id: String,
    #[schemars(with = "String")]
    workspace: WorkspaceId,
    uses: i64,
    used: i64,
    created_at: String,
    created_by: String,
    expires_at: String,
    revoked: bool,
    preset: Option<String>,
    labels: BTreeMap<String, String>,
    name_prefix: Option<String>,
    peer_ttl_seconds: Option<i64>,
    /// The only peer that it is for.
    #[schemars(with = "Option<String>")]
    peer: Option<PeerId>,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<Create>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    if !(1..=MAX_USES).contains(&request.uses) {
        return Err(ApiError::invalid(format!("uses must lie between 1 and {MAX_USES}")));
    }
    if !(1..=LONGEST).contains(&request.ttl_seconds) {
        return Err(ApiError::invalid(format!("ttlSeconds must lie between 1 and {LONGEST}")));
    }
    if let Some(prefix) = &request.name_prefix {
        let fits = !prefix.is_empty() && format!("{prefix}a").parse::<PeerName>().is_ok();
        if !fits {
            return Err(ApiError::invalid(
                "namePrefix must be the beginning of a peer name, of 1 to 62 characters",
            ));
        }
    }
    let peer_ttl = request.peer_ttl.as_deref().map(|ttl| seconds("peerTtl", ttl)).transpose()?;
    let workspace = workspaces::named(&api, &caller, &request.workspace).await?;
    let (token, now) = (Token::from_random(random(), random()), now());
    let new = NewToken {
        workspace: workspace.id,
        max_uses: request.uses,
        expires_at: now + request.ttl_seconds,
        preset: request.preset.map(|preset| preset.to_string()),
        labels: request.labels.into(),
        name_prefix: request.name_prefix,
        peer_ttl,
        peer: None,
        created_by: caller.actor(),
    };
    let row = api.app.store.create_token(&token, new, now).await?;
    let detail = format!("lt-{} for {} peers", row.id, row.max_uses);
    api.event("token.created", Some(&row.workspace), &caller, detail).await;
    Ok((StatusCode::CREATED, Json(Created { token: token.expose(), view: row.into() })))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(filter): Params<Filter>,
) -> Result<Json<Listed<View>>, ApiError> {
    let (workspace, page) = filter.checked()?;
    let workspace = workspaces::filter(&api, &caller, workspace.as_deref()).await?;
    let rows = api.app.store.tokens(workspace.as_ref(), &page).await?;
    Ok(Listed::of(rows, &page, |row| row.id.clone()))
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<View>, ApiError> {
    Ok(Json(find(&api, &caller, &id).await?.into()))
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let row = find(&api, &caller, &id).await?;
    api.app.store.revoke_token(&row.id, now()).await?;
    api.event("token.revoked", Some(&row.workspace), &caller, format!("lt-{}", row.id)).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(api: &Api, caller: &Caller, id: &str) -> Result<TokenRow, ApiError> {
    let found = api.app.store.token(id).await?.filter(|row| caller.sees(&row.workspace));
    found.ok_or_else(|| ApiError::not_found("no such token: list them with GET /api/v1/tokens"))
}

impl From<TokenRow> for View {
    fn from(row: TokenRow) -> Self {
        Self {
            id: row.id,
            workspace: row.workspace,
            uses: row.max_uses,
            used: row.uses,
            created_at: rfc3339(row.created_at),
            created_by: row.created_by,
            expires_at: rfc3339(row.expires_at),
            revoked: row.revoked_at.is_some(),
            preset: row.preset,
            labels: row.labels,
            name_prefix: row.name_prefix,
            peer_ttl_seconds: row.peer_ttl,
            peer: row.peer,
        }
    }
}

fn one() -> i64 {
    1
}

fn one_day() -> i64 {
    86_400
}
