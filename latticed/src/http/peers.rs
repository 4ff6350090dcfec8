//! `/api/v1/peers`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use lattice_wire::{PeerId, PeerName, WorkspaceId};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    access::Caller,
    error::ApiError,
    extract::{Filter, Listed, Params},
    time::rfc3339,
    workspaces,
};
use crate::store::peers::PeerRow;

/// A member of the overlay, or a place that is held for one.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    #[schemars(with = "String")]
    id: PeerId,
    #[schemars(with = "String")]
    workspace: WorkspaceId,
    #[schemars(with = "String")]
    name: PeerName,
    /// `sandbox` or `node`.
    kind: &'static str,
    address: Ipv4Addr,
    /// The workspace's prefix that ends in `address`.
    address6: Ipv6Addr,
    online: bool,
    /// Whether it is a place that is held until the token that belongs to it is used.
    reserved: bool,
    last_seen: String,
    created_at: String,
    /// When it ends unless it is renewed.
    expires_at: Option<String>,
    preset: Option<String>,
    labels: BTreeMap<String, String>,
    agent_type: Option<String>,
    /// Id of the token that admitted it.
    token: Option<String>,
}

/// A peer's time began anew.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Renewed {
    #[schemars(with = "String")]
    peer_id: PeerId,
    /// Null: it has no end.
    expires_at: Option<String>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(filter): Params<Filter>,
) -> Result<Json<Listed<View>>, ApiError> {
    let (workspace, page) = filter.checked()?;
    let workspace = workspaces::filter(&api, &caller, workspace.as_deref()).await?;
    let rows = api.app.store.peers(workspace.as_ref(), &page).await?;
    Ok(Listed::of(rows, &page, |row| row.id.to_string()))
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<View>, ApiError> {
    Ok(Json(find(&api, &caller, &id).await?.into()))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let row = find(&api, &caller, &id).await?;
    if !api.app.remove_peer(&row.id).await? {
        return Err(unknown(&id));
    }
    api.event("peer.removed", Some(&row.workspace), &caller, format!("{} ({})", row.id, row.name)).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn renew(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Renewed>, ApiError> {
    let row = find(&api, &caller, &id).await?;
    let renewed = api.app.renew(&row.id).await?.ok_or_else(|| unknown(&id))?;
    Ok(Json(Renewed { peer_id: row.id, expires_at: renewed.not_after.map(rfc3339) }))
}

/// A peer that the caller sees.
pub(super) async fn find(api: &Api, caller: &Caller, id: &str) -> Result<PeerRow, ApiError> {
    let parsed: PeerId = id.parse().map_err(|e| ApiError::invalid(format!("{e}")))?;
    let found = api.app.store.peer(&parsed).await?.filter(|row| caller.sees(&row.workspace));
    found.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("no peer {id}: list them with GET /api/v1/peers"))
}

impl From<PeerRow> for View {
    fn from(row: PeerRow) -> Self {
        let address6 = row.address6();
        Self {
            id: row.id,
            workspace: row.workspace,
            name: row.name,
            kind: row.kind.as_str(),
            address: row.address.0,
            address6,
            online: row.online,
            reserved: row.wireguard_public_key.is_none(),
            last_seen: rfc3339(row.last_seen),
            created_at: rfc3339(row.created_at),
            expires_at: row.expires_at.map(rfc3339),
            preset: row.preset,
            labels: row.labels,
            agent_type: row.agent_type,
            token: row.token,
        }
    }
}
