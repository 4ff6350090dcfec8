//! What the HTTP API and the NATS service share.

use std::time::Instant;

use async_nats::{Client, connection::State};
use lattice_wire::{PeerId, WorkspaceId};

pub use crate::clock::now;
use crate::{
    limit::RateLimiter,
    maps::Maps,
    metrics::Metrics,
    nats::{Issuer, NatsError, Revoked, Revoker},
    presence::Presence,
    reach::Servers,
    store::{Store, StoreError, events::NewEvent, expiry::Renewed},
};

/// Replays of one token that are written down, in a row and per second. Whoever holds a spent one can repeat it at will.
const REPLAYS_BURST: u32 = 8;
const REPLAYS_PER_SECOND: f64 = 1.0 / 600.0;
const REPLAYED_TOKENS: usize = 10_000;

/// How often each token was replayed, so that one that leaked does not push all else out of the events.
#[derive(Debug)]
pub struct Replays(RateLimiter<String>);

impl Default for Replays {
    fn default() -> Self {
        Self(RateLimiter::new(REPLAYS_BURST, REPLAYS_PER_SECOND, REPLAYED_TOKENS))
    }
}

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
    /// What peers are told of STUN servers and relays.
    pub servers: Servers,
    /// Which tokens were replayed lately.
    pub replays: Replays,
    /// What is counted.
    pub metrics: Metrics,
}

impl App {
    /// Whether NATS is connected.
    pub fn nats_up(&self) -> bool {
        self.nats.connection_state() == State::Connected
    }

    /// Removes a peer: it leaves every map, and its connection to NATS is closed a moment later, see [`crate::revocation`].
    /// False when there is no such peer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_peer(&self, id: &PeerId) -> Result<bool, StoreError> {
        let Some(workspace) = self.store.remove_peer(id, now()).await? else { return Ok(false) };
        self.revoker.changed();
        self.presence.forget(id);
        self.maps.changed(workspace);
        Ok(true)
    }

    /// Lets a peer's time begin anew, and tells the others when it has one. `None` when there is no such peer, or it is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew(&self, id: &PeerId) -> Result<Option<Renewed>, StoreError> {
        let renewed = self.store.renew(id, now()).await?;
        if let Some(renewed) = renewed.as_ref().filter(|renewed| renewed.not_after.is_some()) {
            self.maps.changed(renewed.workspace.clone());
        }
        Ok(renewed)
    }

    /// Writes down a security event. What it says has happened already, so a failure to write is only said in the log.
    pub async fn event(&self, kind: &str, workspace: Option<&WorkspaceId>, actor: String, detail: String) {
        tracing::info!(kind, actor, detail = %detail.escape_debug(), "event");
        let event = NewEvent { workspace: workspace.cloned(), kind: kind.to_owned(), actor, detail };
        if let Err(error) = self.store.record_event(&event, now()).await {
            tracing::error!(%error, kind, "event could not be written down");
        }
    }

    /// Writes down that somebody came with the token `id`, which has done its work; not each time, if that is often.
    pub async fn replayed(&self, id: &str, workspace: Option<&WorkspaceId>, detail: String) {
        if self.replays.0.take(&id.to_owned(), Instant::now()).is_ok() {
            self.event("token.replayed", workspace, format!("lt-{id}"), detail).await;
        }
    }

    /// Tells NATS whom to refuse.
    ///
    /// # Errors
    /// When the database fails, or NATS does not take it.
    pub async fn revoke(&self) -> Result<(), RevokeError> {
        let mut revoked = self.revoked().await?;
        loop {
            self.revoker.set(&self.issuer, revoked.clone(), now()).await?;
            // Since it was read another latticed may have removed somebody and told NATS, which this older list has now undone.
            let newest = self.revoked().await?;
            if newest == revoked {
                return Ok(());
            }
            revoked = newest;
        }
    }

    async fn revoked(&self) -> Result<Revoked, StoreError> {
        Ok(Revoked::new(self.store.revoked_users(now()).await?))
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
