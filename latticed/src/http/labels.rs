//! `PUT /api/v1/peers/{id}/labels`: by them, policies choose peers.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use lattice_policy::Labels;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Api, access::Caller, error::ApiError, extract::Body, peers};

/// The labels of a peer, in place of those that it had.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Put {
    /// At most 32; keys and values are 1 to 63 of A-Z, a-z, 0-9, '.', '_', '/' and '-'.
    #[schemars(with = "BTreeMap<String, String>")]
    labels: Labels,
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<Put>,
) -> Result<Json<peers::View>, ApiError> {
    let row = peers::find(&api, &caller, &id).await?;
    let detail = format!("{} ({}): {}", row.id, row.name, request.labels);
    if let Some(workspace) = api.app.store.set_labels(&row.id, &request.labels.into()).await? {
        api.app.maps.changed(workspace);
    }
    api.event("peer.labelled", Some(&row.workspace), &caller, detail).await;
    Ok(Json(peers::find(&api, &caller, &id).await?.into()))
}
