//! Admission of a peer by its token: token, peer and lease in one transaction, so that a refused peer costs the token nothing.

use std::net::Ipv4Addr;

use lattice_wire::{PeerId, PeerName, Token, WgPublicKey, WorkspaceId, message::PeerKind, netmap::MAX_PEERS};
use sqlx::{AnyConnection, Row as _, any::AnyRow};

use super::{
    Store, StoreError,
    columns::{Address, Endpoints, text},
    events::{self, NewEvent},
    reserve::Entry,
    tokens::{self, TokenRefused, TokenRow},
    workspaces::{self, Change},
};

/// A peer that asks to be admitted, with everything about it already verified but its token.
#[derive(Debug)]
pub struct NewPeer<'a> {
    /// A fresh id. One that was admitted before, or is reserved, keeps its own: see [`Admitted::peer`].
    pub id: &'a PeerId,
    /// The name that it asks for.
    pub name: &'a PeerName,
    /// What it is.
    pub kind: PeerKind,
    /// Its WireGuard key.
    pub wireguard_public_key: WgPublicKey,
    /// Its NATS user key, which it has proved to hold.
    pub nats_public_key: &'a str,
    /// Where it may be reached.
    pub endpoints: &'a Endpoints,
    /// The preset that it asks for, if the token says none.
    pub preset: Option<&'a str>,
    /// Unix seconds after which no JWT is valid that it gets now; a later time does no harm.
    pub jwt_expires_at: i64,
}

/// An admitted peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its id.
    pub peer: PeerId,
    /// The workspace that its token is of.
    pub workspace: WorkspaceId,
    /// The address that it leases.
    pub address: Ipv4Addr,
    /// Unix seconds from which on it is no member any more. `None`: it has no end.
    pub not_after: Option<i64>,
    /// It was admitted before and only hears it again: nothing has changed.
    pub again: bool,
}

/// Why a peer is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrollRefused {
    /// Its token does not admit.
    #[error(transparent)]
    Token(#[from] TokenRefused),
    /// The token does not admit peers of this name.
    #[error(
        "enrollment token admits only names that begin with {0:?}: choose such a --name, or ask for another token"
    )]
    Prefix(String),
    /// The token is of a reserved peer, which has another name.
    #[error("enrollment token admits only the peer {0:?}: give that as --name, or ask for another token")]
    Reserved(String),
    /// The token, or the reserved peer, has another preset.
    #[error("the enrollment token is for the preset {0:?}: ask for that or none, or for another token")]
    Preset(String),
    /// The reserved peer was removed, is over or is there already.
    #[error("the peer that the enrollment token was made for is not to be had any more: ask for a new one")]
    NotReserved,
    /// It has no token, and is no peer that would need none.
    #[error("no living peer has these keys, and there is no enrollment token: enrol with a token")]
    NoPeer,
    /// The name is not free.
    #[error(
        "another peer of the workspace is called {0:?}: choose another --name, or remove that peer first"
    )]
    NameTaken(String),
    /// An earlier request with the same key asked for something else.
    #[error(
        "this Idempotency-Key was sent with another request: choose another for each request, and the same only to repeat one"
    )]
    OtherRequest,
    /// The peer of an earlier request with the same key is removed or over.
    #[error("the peer that this Idempotency-Key enrolled is gone: choose another to enrol it anew")]
    Gone,
    /// A key is not new.
    #[error("this WireGuard or NATS key is already enrolled: make a new key pair")]
    KeyTaken,
    /// No address is left.
    #[error(
        "no address is free in {pool} ({quarantined} rest because their peers were removed): remove peers that are gone, wait, or give latticed a bigger --pool by `latticed adopt`"
    )]
    PoolExhausted {
        /// The configured pool.
        pool: String,
        /// How many of its addresses will be free again without any removal.
        quarantined: i64,
    },
    /// The network map would become bigger than peers accept.
    #[error("the workspace has {MAX_PEERS} peers, the most there can be: remove peers that are gone")]
    WorkspaceFull,
}

impl Store {
    /// Admits a peer. One that lives and asks again with the same name and keys, because it lost the answer, gets it again
    /// without any use of its token, even when that is over. Without a token, only that: it is how a peer comes by a new JWT whose
    /// own has ended.
    ///
    /// # Errors
    /// When the database fails. A refusal is in the inner result and leaves everything as it was.
    pub async fn enroll(
        &self,
        peer: &NewPeer<'_>,
        token: Option<&Token>,
        now: i64,
    ) -> Result<Result<Admitted, EnrollRefused>, StoreError> {
        // Anybody may ask without a token: who is no peer gets no write lock.
        if token.is_none() && same(&mut *self.read.acquire().await?, peer, None, now).await?.is_none() {
            return Ok(Err(EnrollRefused::NoPeer));
        }
        let mut transaction = self.begin().await?;
        let Some(token) = token else {
            let admitted = again(&mut transaction, peer, None, now).await?;
            transaction.commit().await?;
            return Ok(admitted.ok_or(EnrollRefused::NoPeer));
        };
        let token = match tokens::known(&mut transaction, token).await? {
            Ok(token) => token,
            Err(refused) => return Ok(Err(refused.into())),
        };
        if let Some(admitted) = again(&mut transaction, peer, Some(&token.workspace), now).await? {
            transaction.commit().await?;
            return Ok(Ok(admitted));
        }
        if let Err(refused) = same_preset(peer.preset, token.preset.as_deref()) {
            return Ok(Err(refused));
        }
        if let Err(refused) = take(&mut transaction, &token, peer.name, now).await? {
            return Ok(Err(refused));
        }
        let admitted = match &token.peer {
            Some(reserved) => redeem(&mut transaction, peer, &token, reserved, now).await?,
            None => self.insert(&mut transaction, &Entry::enrolling(peer, &token, now), now).await?,
        };
        if let Ok(admitted) = &admitted {
            let event = NewEvent {
                workspace: Some(admitted.workspace.clone()),
                kind: "peer.enrolled".into(),
                actor: format!("lt-{}", token.id),
                detail: format!("{} {} {}", admitted.peer, peer.name, admitted.address),
            };
            events::insert(&mut transaction, &event, now).await?;
            transaction.commit().await?;
        }
        Ok(admitted)
    }
}

/// A preset of the token's cannot be exchanged for another.
fn same_preset(asked: Option<&str>, own: Option<&str>) -> Result<(), EnrollRefused> {
    match (asked, own) {
        (Some(asked), Some(own)) if asked != own => Err(EnrollRefused::Preset(own.to_owned())),
        _ => Ok(()),
    }
}

/// Takes one use of `token` for a peer called `name`.
pub(super) async fn take(
    connection: &mut AnyConnection,
    token: &TokenRow,
    name: &PeerName,
    now: i64,
) -> Result<Result<(), EnrollRefused>, sqlx::Error> {
    if let Err(refused) = token.admits(now) {
        return Ok(Err(refused.into()));
    }
    if let Some(prefix) = token.name_prefix.as_ref().filter(|_| !token.admits_name(name)) {
        return Ok(Err(EnrollRefused::Prefix(prefix.clone())));
    }
    Ok(tokens::consume(connection, &token.id, now).await?.map_err(EnrollRefused::from))
}

/// Admits once more the living peer that `peer` already is.
async fn again(
    connection: &mut AnyConnection,
    peer: &NewPeer<'_>,
    workspace: Option<&WorkspaceId>,
    now: i64,
) -> Result<Option<Admitted>, sqlx::Error> {
    let Some(admitted) = same(connection, peer, workspace, now).await? else { return Ok(None) };
    sqlx::query("UPDATE peers SET jwt_expires_at = $2 WHERE id = $1 AND jwt_expires_at < $2")
        .bind(admitted.peer.as_str())
        .bind(peer.jwt_expires_at)
        .execute(connection)
        .await?;
    Ok(Some(Admitted { again: true, ..admitted }))
}

/// The living peer that `peer` already is, in `workspace` if that is given. It has proved that it holds the NATS key, and no two
/// living peers have one key.
async fn same(
    connection: &mut AnyConnection,
    peer: &NewPeer<'_>,
    workspace: Option<&WorkspaceId>,
    now: i64,
) -> Result<Option<Admitted>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT id, workspace, address, expires_at FROM members \
         WHERE ($1 IS NULL OR workspace = $1) AND name = $2 AND wireguard_public_key = $3 AND nats_public_key = $4 \
           AND (expires_at IS NULL OR expires_at > $5)",
    )
    .bind(workspace.map(WorkspaceId::as_str))
    .bind(peer.name.as_str())
    .bind(peer.wireguard_public_key.to_string())
    .bind(peer.nats_public_key)
    .bind(now)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(admitted).transpose()
}

/// Lets `peer` become the one that was reserved for its token. That keeps what was said of it when it was reserved.
async fn redeem(
    connection: &mut AnyConnection,
    peer: &NewPeer<'_>,
    token: &TokenRow,
    reserved: &PeerId,
    now: i64,
) -> Result<Result<Admitted, EnrollRefused>, sqlx::Error> {
    let name = sqlx::query(
        "SELECT name, preset FROM peers WHERE id = $1 AND workspace = $2 AND removed_at IS NULL \
           AND wireguard_public_key IS NULL AND (expires_at IS NULL OR expires_at > $3)",
    )
    .bind(reserved.as_str())
    .bind(token.workspace.as_str())
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(name) = name else { return Ok(Err(EnrollRefused::NotReserved)) };
    let preset: Option<String> = name.try_get("preset")?;
    let name: PeerName = text(&name, "name")?;
    if name != *peer.name {
        return Ok(Err(EnrollRefused::Reserved(name.to_string())));
    }
    if let Err(refused) = same_preset(peer.preset, preset.as_deref()) {
        return Ok(Err(refused));
    }
    if key_taken(connection, &peer.wireguard_public_key, Some(peer.nats_public_key)).await? {
        return Ok(Err(EnrollRefused::KeyTaken));
    }
    sqlx::query(
        "UPDATE peers SET changed = NULL, wireguard_public_key = $2, nats_public_key = $3, endpoints = $4, online = 1, \
                last_seen = $5, token = $6, jwt_expires_at = $7, preset = COALESCE(preset, $8), \
                expires_at = CASE WHEN ttl IS NULL THEN NULL ELSE $5 + ttl END WHERE id = $1",
    )
    .bind(reserved.as_str())
    .bind(peer.wireguard_public_key.to_string())
    .bind(peer.nats_public_key)
    .bind(peer.endpoints.to_json())
    .bind(now)
    .bind(token.id.as_str())
    .bind(peer.jwt_expires_at)
    .bind(peer.preset)
    .execute(&mut *connection)
    .await?;
    workspaces::bump(connection, &token.workspace, Change::Peers).await?;
    let row = sqlx::query("SELECT id, workspace, address, expires_at FROM members WHERE id = $1")
        .bind(reserved.as_str())
        .fetch_one(connection)
        .await?;
    admitted(&row).map(Ok)
}

/// Whether a living peer has one of these keys.
pub(super) async fn key_taken(
    connection: &mut AnyConnection,
    wireguard: &WgPublicKey,
    nats: Option<&str>,
) -> Result<bool, sqlx::Error> {
    // Not one condition with OR: SQLite would look at every peer.
    let select = "SELECT id FROM peers WHERE removed_at IS NULL AND wireguard_public_key = $1 \
                  UNION ALL SELECT id FROM peers WHERE removed_at IS NULL AND nats_public_key = $2 LIMIT 1";
    let taken = sqlx::query(select).bind(wireguard.to_string()).bind(nats).fetch_optional(connection).await?;
    Ok(taken.is_some())
}

fn admitted(row: &AnyRow) -> Result<Admitted, sqlx::Error> {
    Ok(Admitted {
        peer: text(row, "id")?,
        workspace: text(row, "workspace")?,
        address: Address::column(row)?.0,
        not_after: row.try_get("expires_at")?,
        again: false,
    })
}
