//! What the HTTP API and the NATS service share.

use async_nats::{Client, connection::State};
use lattice_wire::{PeerId, WorkspaceId};

use crate::{
    maps::Maps,
    metrics::Metrics,
    nats::Issuer,
    presence::Presence,
    store::{Store, StoreError, events::NewEvent},
};

/// The parts, once each.
#[derive(Debug)]
pub struct App {
    /// What is remembered.
    pub store: Store,
    /// Who signs.
    pub issuer: Issuer,
    /// The connection to NATS.
    pub nats: Client,
    /// Who is to be told.
    pub maps: Maps,
    /// Who was heard from.
    pub presence: Presence,
    /// What is counted.
    pub metrics: Metrics,
}

impl App {
    /// Whether NATS is connected.
    pub fn nats_up(&self) -> bool {
        self.nats.connection_state() == State::Connected
    }

    /// Removes a peer and tells the others. False when there is no such peer.
    ///
    /// Its JWT stays valid in NATS, so it can still connect; every request of it is refused as unknown.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_peer(&self, id: &PeerId) -> Result<bool, StoreError> {
        let Some(workspace) = self.store.remove_peer(id, now()).await? else { return Ok(false) };
        self.presence.forget(id);
        self.maps.changed(workspace);
        tracing::info!(peer = %id, "peer removed");
        Ok(true)
    }

    /// Writes down a security event. What it says has happened already, so a failure to write is only said in the log.
    pub async fn event(&self, kind: &str, workspace: Option<&WorkspaceId>, actor: String, detail: String) {
        tracing::info!(kind, actor, detail = %detail.escape_debug(), "event");
        let event = NewEvent { workspace: workspace.cloned(), kind: kind.to_owned(), actor, detail };
        if let Err(error) = self.store.record_event(&event, now()).await {
            tracing::error!(%error, kind, "event could not be written down");
        }
    }
}

/// Unix seconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
