//! Enrollment tokens: counted, limited in what they admit and how long, revocable, kept as a hash.

use lattice_wire::{PeerId, PeerName, Token, WorkspaceId};
use sqlx::{AnyConnection, FromRow, Row as _, any::AnyRow};
use subtle::ConstantTimeEq as _;

use super::{
    Page, Store, StoreError,
    columns::{self, Labels, json, maybe, text},
    reserve::OwnToken,
};

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The workspace that it admits to.
    pub workspace: WorkspaceId,
    /// How many peers it admits. With none it is only a bearer.
    pub max_uses: i64,
    /// Unix seconds.
    pub expires_at: i64,
    /// The preset of those that it admits.
    pub preset: Option<String>,
    /// Their labels.
    pub labels: Labels,
    /// What their names must begin with.
    pub name_prefix: Option<String>,
    /// How many seconds they live.
    pub peer_ttl: Option<i64>,
    /// The one reserved peer that it admits.
    pub peer: Option<PeerId>,
    /// Who made it.
    pub created_by: String,
}

/// A token, without its secret.
#[derive(Debug, Clone)]
pub struct TokenRow {
    /// Its public part.
    pub id: String,
    /// The workspace that it admits to.
    pub workspace: WorkspaceId,
    /// How many peers it admits.
    pub max_uses: i64,
    /// How many it has admitted.
    pub uses: i64,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub expires_at: i64,
    /// Unix seconds.
    pub revoked_at: Option<i64>,
    /// The preset of those that it admits.
    pub preset: Option<String>,
    /// Their labels.
    pub labels: Labels,
    /// What their names must begin with.
    pub name_prefix: Option<String>,
    /// How many seconds they live.
    pub peer_ttl: Option<i64>,
    /// The one reserved peer that it admits.
    pub peer: Option<PeerId>,
    /// Who made it.
    pub created_by: String,
}

/// Why a token does not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Not ours, or its secret is wrong: the two are not told apart.
    #[error("enrollment token is not known here: check that it was made by this server")]
    Unknown,
    /// Revoked.
    #[error("enrollment token was revoked: ask for a new one")]
    Revoked,
    /// Over.
    #[error("enrollment token has expired: ask for a new one")]
    Expired,
    /// Spent.
    #[error("enrollment token has no uses left: ask for a new one")]
    Used,
}

impl NewToken {
    /// The token that belongs to a peer; while that is reserved, it also admits it, once.
    pub(super) fn of_peer(workspace: &WorkspaceId, peer: &PeerId, own: &OwnToken, reserved: bool) -> Self {
        Self {
            workspace: workspace.clone(),
            // Who is admitted already has no use for one.
            max_uses: i64::from(reserved),
            expires_at: own.expires_at,
            preset: None,
            labels: Labels::new(),
            name_prefix: None,
            peer_ttl: None,
            peer: Some(peer.clone()),
            created_by: own.created_by.clone(),
        }
    }
}

impl Store {
    /// Remembers a new token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_token(&self, token: &Token, new: NewToken, now: i64) -> Result<TokenRow, StoreError> {
        let mut transaction = self.begin().await?;
        let row = insert(&mut transaction, token, new, now).await?;
        transaction.commit().await?;
        Ok(row)
    }

    /// A token by its public part.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        let select = "SELECT * FROM tokens WHERE id = $1";
        Ok(sqlx::query_as(select).bind(id).fetch_optional(&self.read).await?)
    }

    /// The tokens of a workspace, or of all, by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tokens(
        &self,
        workspace: Option<&WorkspaceId>,
        page: &Page,
    ) -> Result<Vec<TokenRow>, StoreError> {
        let select = "SELECT * FROM tokens WHERE ($1 IS NULL OR workspace = $1) AND ($2 IS NULL OR id > $2) \
                      ORDER BY id LIMIT $3";
        self.page(select, workspace, page).await
    }

    /// Revokes a token; one that is revoked stays so. False when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_token(&self, id: &str, now: i64) -> Result<bool, StoreError> {
        let update = "UPDATE tokens SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2";
        let mut transaction = self.begin().await?;
        let updated = sqlx::query(update).bind(now).bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Whether `token` would admit now. Takes no write lock, so that guessing costs others nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn check_token(&self, token: &Token, now: i64) -> Result<Result<(), TokenRefused>, StoreError> {
        let mut connection = self.read.acquire().await?;
        Ok(known(&mut connection, token).await?.and_then(|row| row.admits(now)))
    }

    /// The row of a token that is known, not revoked and not over, whether or not it has uses left.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn bearer(&self, token: &Token, now: i64) -> Result<Option<TokenRow>, StoreError> {
        let mut connection = self.read.acquire().await?;
        let row = known(&mut connection, token).await?.ok();
        Ok(row.filter(|row| row.revoked_at.is_none() && row.expires_at > now))
    }
}

impl TokenRow {
    pub(super) fn admits(&self, now: i64) -> Result<(), TokenRefused> {
        if self.revoked_at.is_some() {
            Err(TokenRefused::Revoked)
        } else if self.expires_at <= now {
            Err(TokenRefused::Expired)
        } else if self.uses >= self.max_uses {
            Err(TokenRefused::Used)
        } else {
            Ok(())
        }
    }

    pub(super) fn admits_name(&self, name: &PeerName) -> bool {
        self.name_prefix.as_ref().is_none_or(|prefix| name.as_str().starts_with(prefix))
    }
}

/// Remembers a new token.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    token: &Token,
    new: NewToken,
    now: i64,
) -> Result<TokenRow, sqlx::Error> {
    sqlx::query_as(
        "INSERT INTO tokens (id, workspace, secret_hash, max_uses, created_at, expires_at, preset, labels, \
                             name_prefix, peer_ttl, peer, created_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING *",
    )
    .bind(token.id())
    .bind(new.workspace.as_str())
    .bind(token.secret_hash().as_slice())
    .bind(new.max_uses)
    .bind(now)
    .bind(new.expires_at)
    .bind(new.preset)
    .bind(columns::labels(&new.labels)?)
    .bind(new.name_prefix)
    .bind(new.peer_ttl)
    .bind(new.peer.as_ref().map(PeerId::as_str))
    .bind(new.created_by)
    .fetch_one(connection)
    .await
}

/// The row of `token`, whatever its state, when its secret is right.
pub(super) async fn known(
    connection: &mut AnyConnection,
    token: &Token,
) -> Result<Result<TokenRow, TokenRefused>, sqlx::Error> {
    let row =
        sqlx::query("SELECT * FROM tokens WHERE id = $1").bind(token.id()).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(Err(TokenRefused::Unknown)) };
    let secret_hash: Vec<u8> = row.try_get("secret_hash")?;
    if !bool::from(secret_hash.ct_eq(&token.secret_hash())) {
        return Ok(Err(TokenRefused::Unknown));
    }
    TokenRow::from_row(&row).map(Ok)
}

/// Takes one use of a token, within the transaction that admits a peer: one conditional statement, so that no two
/// transactions can take the same use.
pub(super) async fn consume(
    connection: &mut AnyConnection,
    id: &str,
    now: i64,
) -> Result<Result<(), TokenRefused>, sqlx::Error> {
    let update = "UPDATE tokens SET uses = uses + 1 \
                  WHERE id = $1 AND uses < max_uses AND revoked_at IS NULL AND expires_at > $2";
    let taken = sqlx::query(update).bind(id).bind(now).execute(connection).await?;
    Ok(if taken.rows_affected() == 1 { Ok(()) } else { Err(TokenRefused::Used) })
}

impl FromRow<'_, AnyRow> for TokenRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            workspace: text(row, "workspace")?,
            max_uses: row.try_get("max_uses")?,
            uses: row.try_get("uses")?,
            created_at: row.try_get("created_at")?,
            expires_at: row.try_get("expires_at")?,
            revoked_at: row.try_get("revoked_at")?,
            preset: row.try_get("preset")?,
            labels: json(row, "labels")?,
            name_prefix: row.try_get("name_prefix")?,
            peer_ttl: row.try_get("peer_ttl")?,
            peer: maybe(row, "peer")?,
            created_by: row.try_get("created_by")?,
        })
    }
}
