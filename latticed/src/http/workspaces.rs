//! `/api/v1/workspaces`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use lattice_wire::{PeerName, WorkspaceId};
use serde::{Deserialize, Serialize};

use super::{Api, error::ApiError, extract::Body, time::rfc3339};
use crate::{
    app::now,
    keys::random,
    store::{Page, workspaces::Workspace},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    id: WorkspaceId,
    name: PeerName,
    created_at: String,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Body(request): Body<Create>,
) -> Result<(StatusCode, Json<View>), ApiError> {
    let name: PeerName = request.name.parse().map_err(|e| ApiError::invalid(format!("{e}")))?;
    if name.as_str().parse::<WorkspaceId>().is_ok() {
        return Err(ApiError::invalid("a workspace name must not look like a workspace id"));
    }
    let id = WorkspaceId::from_random(random());
    match api.app.store.create_workspace(id, name.clone(), now()).await? {
        Some(workspace) => Ok((StatusCode::CREATED, Json(workspace.into()))),
        None => Err(ApiError::conflict(format!("there is a workspace {name:?} already"))),
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<View>>, ApiError> {
    Ok(Json(api.app.store.workspaces(&Page::all()).await?.into_iter().map(View::from).collect()))
}

/// The workspace that a request names, by name or id.
pub(super) async fn named(api: &Api, name_or_id: &str) -> Result<Workspace, ApiError> {
    let shown: String = name_or_id.chars().take(80).collect();
    api.app.store.workspace(name_or_id).await?.ok_or_else(|| {
        ApiError::not_found(format!("no workspace {shown:?}: create it with POST /api/v1/workspaces"))
    })
}

/// [`named`], when a request names one.
pub(super) async fn filter(api: &Api, name_or_id: Option<&str>) -> Result<Option<WorkspaceId>, ApiError> {
    match name_or_id {
        Some(name_or_id) => Ok(Some(named(api, name_or_id).await?.id)),
        None => Ok(None),
    }
}

impl From<Workspace> for View {
    fn from(workspace: Workspace) -> Self {
        Self { id: workspace.id, name: workspace.name, created_at: rfc3339(workspace.created_at) }
    }
}
