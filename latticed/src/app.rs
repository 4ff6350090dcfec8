//! What the HTTP API and the NATS service share.

use async_nats::{Client, connection::State};
use lattice_wire::PeerId;

use crate::{
    maps::Maps,
    nats::{Issuer, NatsError, Revoked, Revoker},
    presence::Presence,
    store::{Store, StoreError},
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

    /// Removes a peer and tells the others. False when there is no such peer.
    ///
    /// Its connection to NATS is closed a moment later, see [`crate::revocation`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_peer(&self, id: &PeerId) -> Result<bool, StoreError> {
        let Some(workspace) = self.store.remove_peer(id, now()).await? else { return Ok(false) };
        self.revoker.changed();
        self.presence.forget(id);
        self.maps.changed(workspace);
        tracing::info!(peer = %id, "peer removed");
        Ok(true)
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
