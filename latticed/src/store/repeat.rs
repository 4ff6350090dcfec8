//! Requests that a client may send again because it lost the answer: the same key then means the same peer.

use lattice_wire::{PeerId, WorkspaceId};
use sqlx::{AnyConnection, Row as _};

use super::{
    columns::{Address, flag, text},
    enroll::{Admitted, EnrollRefused},
    reserve::OwnToken,
    tokens::{self, NewToken},
};

/// So long is a key remembered, in seconds.
pub const REPEATABLE_SECS: i64 = 86_400;

/// What makes two requests the same.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// Whose key it is: the id of the token that asks.
    pub caller: String,
    /// The key that the client chose.
    pub key: String,
    /// SHA-256 of what it asks for.
    pub request_hash: [u8; 32],
}

/// The peer of an earlier request with this key, and a fresh token of it in the place of the one that was shown then. `None` when there was
/// none within [`REPEATABLE_SECS`].
pub(super) async fn again(
    connection: &mut AnyConnection,
    workspace: &WorkspaceId,
    repeat: &Repeat,
    own: &OwnToken,
    now: i64,
) -> Result<Option<Result<Admitted, EnrollRefused>>, sqlx::Error> {
    let select = "SELECT request_hash, peer, token FROM repeatable \
                  WHERE workspace = $1 AND caller = $2 AND key = $3 AND ends_at > $4";
    let row = sqlx::query(select)
        .bind(workspace.as_str())
        .bind(repeat.caller.as_str())
        .bind(repeat.key.as_str())
        .bind(now)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<Vec<u8>, _>("request_hash")? != repeat.request_hash {
        return Ok(Some(Err(EnrollRefused::OtherRequest)));
    }
    let (peer, token): (PeerId, String) = (text(&row, "peer")?, row.try_get("token")?);
    let select = "SELECT address, expires_at, CASE WHEN wireguard_public_key IS NULL THEN 1 ELSE 0 END AS reserved \
                  FROM peers JOIN leases ON leases.peer = peers.id \
                  WHERE peers.id = $1 AND removed_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";
    let living = sqlx::query(select).bind(peer.as_str()).bind(now).fetch_optional(&mut *connection).await?;
    let Some(living) = living else { return Ok(Some(Err(EnrollRefused::Gone))) };
    sqlx::query("UPDATE tokens SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2")
        .bind(now)
        .bind(token)
        .execute(&mut *connection)
        .await?;
    let new = NewToken::of_peer(workspace, &peer, own, flag(&living, "reserved")?);
    tokens::insert(connection, &own.token, new, now).await?;
    sqlx::query("UPDATE repeatable SET token = $4 WHERE workspace = $1 AND caller = $2 AND key = $3")
        .bind(workspace.as_str())
        .bind(repeat.caller.as_str())
        .bind(repeat.key.as_str())
        .bind(own.token.id())
        .execute(connection)
        .await?;
    Ok(Some(Ok(Admitted {
        peer,
        workspace: workspace.clone(),
        address: Address::column(&living)?.0,
        not_after: living.try_get("expires_at")?,
        again: true,
    })))
}

/// Remembers which peer a request with this key was granted.
pub(super) async fn remember(
    connection: &mut AnyConnection,
    admitted: &Admitted,
    repeat: &Repeat,
    own: &OwnToken,
    now: i64,
) -> Result<(), sqlx::Error> {
    // One that is over may still be there.
    sqlx::query(
        "INSERT INTO repeatable (workspace, caller, key, request_hash, peer, token, ends_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (workspace, caller, key) DO UPDATE \
         SET request_hash = $4, peer = $5, token = $6, ends_at = $7",
    )
    .bind(admitted.workspace.as_str())
    .bind(repeat.caller.as_str())
    .bind(repeat.key.as_str())
    .bind(repeat.request_hash.as_slice())
    .bind(admitted.peer.as_str())
    .bind(own.token.id())
    .bind(now + REPEATABLE_SECS)
    .execute(connection)
    .await
    .map(drop)
}
