//! `/api/v1/peers`.

use std::{net::Ipv4Addr, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use lattice_wire::{PeerId, PeerName, WorkspaceId};
use serde::{Deserialize, Serialize};

use super::{Api, error::ApiError, extract::Params, time::rfc3339, workspaces};
use crate::store::{Page, peers::PeerRow};

#[derive(Deserialize)]
pub(super) struct Filter {
    workspace: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    id: PeerId,
    workspace: WorkspaceId,
    name: PeerName,
    kind: &'static str,
    address: Ipv4Addr,
    online: bool,
    last_seen: String,
    created_at: String,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(filter): Params<Filter>,
) -> Result<Json<Vec<View>>, ApiError> {
    let workspace = workspaces::filter(&api, filter.workspace.as_deref()).await?;
    Ok(Json(
        api.app.store.peers(workspace.as_ref(), &Page::all()).await?.into_iter().map(View::from).collect(),
    ))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id: PeerId = id.parse().map_err(|e| ApiError::invalid(format!("{e}")))?;
    if api.app.remove_peer(&id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found(format!("no peer {id}: list them with GET /api/v1/peers")))
}

impl From<PeerRow> for View {
    fn from(row: PeerRow) -> Self {
        Self {
            id: row.id,
            workspace: row.workspace,
            name: row.name,
            kind: row.kind.as_str(),
            address: row.address.0,
            online: row.online,
            last_seen: rfc3339(row.last_seen),
            created_at: rfc3339(row.created_at),
        }
    }
}
