//! What the HTTP API and the NATS service share.

use async_nats::{Client, connection::State};
use lattice_wire::PeerId;

use crate::{
    maps::Maps,
    nats::Issuer,
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
}

/// Unix seconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
