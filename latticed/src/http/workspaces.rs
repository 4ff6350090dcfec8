//! `/api/v1/workspaces`, and how other routes find the one that a request names.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use ipnet::Ipv6Net;
use lattice_policy::Overlay;
use lattice_wire::{PeerName, WorkspaceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    access::Caller,
    error::ApiError,
    extract::{Body, Listed, Page, Params},
    time::rfc3339,
};
use crate::{app::now, keys::random, store::workspaces::Workspace};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    /// 1 to 63 of a-z, 0-9 and '-'.
    name: String,
}

/// A tenant: peers, tokens and policies belong to exactly one.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    #[schemars(with = "String")]
    id: WorkspaceId,
    #[schemars(with = "String")]
    name: PeerName,
    /// The /48 in which its peers have IPv6 addresses.
    #[schemars(with = "String")]
    prefix: Ipv6Net,
    created_at: String,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<Create>,
) -> Result<(StatusCode, Json<View>), ApiError> {
    let name: PeerName = request.name.parse().map_err(|e| ApiError::invalid(format!("{e}")))?;
    if name.as_str().parse::<WorkspaceId>().is_ok() {
        return Err(ApiError::invalid("a workspace name must not look like a workspace id"));
    }
    let id = WorkspaceId::from_random(random());
    match api.app.store.create_workspace(id, name.clone(), Overlay::prefix_of(random()), now()).await? {
        Some(workspace) => {
            api.event("workspace.created", Some(&workspace.id), &caller, name.to_string()).await;
            Ok((StatusCode::CREATED, Json(workspace.into())))
        }
        None => Err(ApiError::conflict(format!("there is a workspace {name:?} already"))),
    }
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(page): Params<Page>,
) -> Result<Json<Listed<View>>, ApiError> {
    let page = page.checked()?;
    let rows = match caller.scope() {
        Some(own) => api.app.store.workspace(own.as_str()).await?.into_iter().collect(),
        None => api.app.store.workspaces(&page).await?,
    };
    Ok(Listed::of(rows, &page, |row: &Workspace| row.name.to_string()))
}

/// The workspace that a request names, by name or id. One that the caller does not see is none.
pub(super) async fn named(api: &Api, caller: &Caller, name_or_id: &str) -> Result<Workspace, ApiError> {
    let found = api.app.store.workspace(name_or_id).await?;
    found.filter(|workspace| caller.sees(&workspace.id)).ok_or_else(|| {
        let shown: String = name_or_id.chars().take(80).collect();
        ApiError::not_found(format!("no workspace {shown:?}: list them with GET /api/v1/workspaces"))
    })
}

/// [`named`], when a request names one; else the caller's own. `None`: all.
pub(super) async fn filter(
    api: &Api,
    caller: &Caller,
    name_or_id: Option<&str>,
) -> Result<Option<WorkspaceId>, ApiError> {
    match name_or_id {
        Some(name_or_id) => Ok(Some(named(api, caller, name_or_id).await?.id)),
        None => Ok(caller.scope().cloned()),
    }
}

impl From<Workspace> for View {
    fn from(workspace: Workspace) -> Self {
        Self {
            id: workspace.id,
            name: workspace.name,
            prefix: workspace.prefix.0,
            created_at: rfc3339(workspace.created_at),
        }
    }
}
