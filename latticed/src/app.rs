//! What the HTTP API and the NATS service share.

use async_nats::{Client, connection::State};
use lattice_wire::{PeerId, WorkspaceId};

use crate::{
    maps::Maps,
    nats::{Issuer, NatsError, Revoked, Revoker},
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
    /// The way to NATS's list of revoked users.
    pub revoker: Revoker,
    /// Who is to be told.
    pub maps: Maps,
    /// Who was heard from.
    pub presence: Presence,
}

impl App {
    /// Whether NATS is connected.
    pub fn nats_up(&self) -> bool {
        self.nats.connection_state() == State::Connected
    }

    /// Removes a peer: it leaves every map, and its connection to NATS is closed a moment later, see [`crate::reconcile`].
    /// False when there is no such peer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_peer(&self, id: &PeerId, by: &str) -> Result<bool, StoreError> {
        let Some(workspace) = self.store.remove_peer(id, now()).await? else { return Ok(false) };
        self.revoker.changed();
        self.presence.forget(id);
        self.maps.changed(workspace.clone());
        self.revoker.changed();
        tracing::info!(peer = %id, by, "peer removed");
        self.event(Some(&workspace), "peer.removed", by, id.as_str()).await;
        Ok(true)
    }

    /// Writes down a security event. What it is about has happened already, so a failure is only logged.
    pub async fn event(&self, workspace: Option<&WorkspaceId>, kind: &str, actor: &str, detail: &str) {
        let event = NewEvent {
            workspace: workspace.cloned(),
            kind: kind.into(),
            actor: actor.into(),
            detail: detail.into(),
        };
        if let Err(error) = self.store.record_event(&event, now()).await {
            tracing::error!(kind, actor, detail, %error, "security event could not be written down");
        }
    }

    /// Tells NATS whom to refuse.
    ///
    /// # Errors
    /// When the database fails, or NATS does not take it.
    pub async fn revoke(&self) -> Result<(), RevokeError> {
        let now = now();
        let removed = self.store.revoked_users(now).await?;
        Ok(self.revoker.set(&self.issuer, Revoked::new(removed), now).await?)
    }
}

/// Why NATS does not know whom to refuse.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// NATS.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// Unix seconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
