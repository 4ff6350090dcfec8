//! `GET /api/v1/events`: what was done that bears on security, and by whom.

use std::sync::Arc;

use axum::{Json, extract::State};
use lattice_wire::WorkspaceId;
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
use crate::store::events::EventRow;

/// A security event.
#[derive(Serialize, JsonSchema)]
pub(super) struct View {
    seq: i64,
    at: String,
    #[schemars(with = "Option<String>")]
    workspace: Option<WorkspaceId>,
    /// What: `token.replayed`, `peer.removed`, …
    kind: String,
    /// Id of the token that did it.
    actor: String,
    detail: String,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(filter): Params<Filter>,
) -> Result<Json<Listed<View>>, ApiError> {
    let (workspace, page) = filter.checked()?;
    if page.after.as_ref().is_some_and(|after| after.parse::<i64>().is_err()) {
        return Err(ApiError::invalid("after must be the `next` of a page"));
    }
    let workspace = workspaces::filter(&api, &caller, workspace.as_deref()).await?;
    let rows = api.app.store.events(workspace.as_ref(), &page).await?;
    Ok(Listed::of(rows, &page, |row| row.seq.to_string()))
}

impl Api {
    /// Writes down what `caller` did.
    pub(super) async fn event(
        &self,
        kind: &str,
        workspace: Option<&WorkspaceId>,
        caller: &Caller,
        detail: String,
    ) {
        self.app.event(kind, workspace, caller.actor(), detail).await;
    }
}

impl From<EventRow> for View {
    fn from(row: EventRow) -> Self {
        Self {
            seq: row.seq,
            at: rfc3339(row.at),
            workspace: row.event.workspace,
            kind: row.event.kind,
            actor: row.event.actor,
            detail: row.event.detail,
        }
    }
}
