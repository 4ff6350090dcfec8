//! Enrollment tokens: counted, limited in time, revocable, kept as a hash.

use lattice_wire::{Token, WorkspaceId};
use sqlx::{FromRow, SqliteConnection};
use subtle::ConstantTimeEq as _;

use super::{Store, StoreError};

/// A token, without its secret.
#[derive(Debug, Clone, FromRow)]
pub struct TokenRow {
    /// Its public part.
    pub id: String,
    /// The workspace that it admits to.
    #[sqlx(try_from = "String")]
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

#[derive(FromRow)]
struct State {
    secret_hash: Vec<u8>,
    uses: i64,
    max_uses: i64,
    expires_at: i64,
    revoked_at: Option<i64>,
}

impl Store {
    /// Remembers a new token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_token(
        &self,
        token: &Token,
        workspace: WorkspaceId,
        max_uses: i64,
        now: i64,
        expires_at: i64,
    ) -> Result<TokenRow, StoreError> {
        sqlx::query(
            "INSERT INTO tokens (id, workspace, secret_hash, max_uses, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(token.id())
        .bind(workspace.as_str())
        .bind(token.secret_hash().as_slice())
        .bind(max_uses)
        .bind(now)
        .bind(expires_at)
        .execute(&self.write)
        .await?;
        let id = token.id().to_owned();
        Ok(TokenRow { id, workspace, max_uses, uses: 0, created_at: now, expires_at, revoked_at: None })
    }

    /// The tokens of a workspace, or of all, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tokens(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<TokenRow>, StoreError> {
        let select = "SELECT id, workspace, max_uses, uses, created_at, expires_at, revoked_at FROM tokens \
                      WHERE ?1 IS NULL OR workspace = ?1 ORDER BY created_at, id";
        Ok(sqlx::query_as(select).bind(workspace.map(WorkspaceId::as_str)).fetch_all(&self.read).await?)
    }

    /// Revokes a token; one that is revoked stays so. False when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_token(&self, id: &str, now: i64) -> Result<bool, StoreError> {
        let update = "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?";
        let updated = sqlx::query(update).bind(now).bind(id).execute(&self.write).await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Whether `token` would admit now. Takes no write lock, so that guessing costs others nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn check_token(&self, token: &Token, now: i64) -> Result<Result<(), TokenRefused>, StoreError> {
        let mut connection = self.read.acquire().await?;
        Ok(check(&mut connection, token, now).await?)
    }
}

/// Takes one use of `token`, within the transaction that admits a peer: one conditional statement, so that no two
/// transactions can take the same use.
pub(super) async fn consume(
    connection: &mut SqliteConnection,
    token: &Token,
    now: i64,
) -> Result<Result<WorkspaceId, TokenRefused>, sqlx::Error> {
    if let Err(refused) = check(connection, token, now).await? {
        return Ok(Err(refused));
    }
    let taken: Option<(String,)> = sqlx::query_as(
        "UPDATE tokens SET uses = uses + 1 \
         WHERE id = ?1 AND uses < max_uses AND revoked_at IS NULL AND expires_at > ?2 RETURNING workspace",
    )
    .bind(token.id())
    .bind(now)
    .fetch_optional(connection)
    .await?;
    let Some((workspace,)) = taken else { return Ok(Err(TokenRefused::Used)) };
    workspace.parse().map(Ok).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

async fn check(
    connection: &mut SqliteConnection,
    token: &Token,
    now: i64,
) -> Result<Result<(), TokenRefused>, sqlx::Error> {
    let select = "SELECT secret_hash, uses, max_uses, expires_at, revoked_at FROM tokens WHERE id = ?";
    let state: Option<State> = sqlx::query_as(select).bind(token.id()).fetch_optional(connection).await?;
    let known = state.filter(|s| bool::from(s.secret_hash.ct_eq(&token.secret_hash())));
    Ok(match known {
        None => Err(TokenRefused::Unknown),
        Some(s) if s.revoked_at.is_some() => Err(TokenRefused::Revoked),
        Some(s) if s.expires_at <= now => Err(TokenRefused::Expired),
        Some(s) if s.uses >= s.max_uses => Err(TokenRefused::Used),
        Some(_) => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::store, *};

    const NOW: i64 = 1_000;

    #[tokio::test]
    async fn says_why_it_refuses() {
        let (_dir, store) = store("10.42.0.0/16").await;
        let workspace = WorkspaceId::from_random([1; 10]);
        store.create_workspace(workspace.clone(), "w".parse().unwrap(), NOW).await.unwrap().unwrap();
        let token = Token::from_random([1; 7], [2; 25]);
        let check = async |token: &Token, now| store.check_token(token, now).await.unwrap();

        assert_eq!(check(&token, NOW).await, Err(TokenRefused::Unknown));
        store.create_token(&token, workspace, 1, NOW, NOW + 10).await.unwrap();
        assert_eq!(check(&token, NOW + 9).await, Ok(()));
        assert_eq!(check(&token, NOW + 10).await, Err(TokenRefused::Expired));
        let same_id = Token::from_random([1; 7], [3; 25]);
        assert_eq!(check(&same_id, NOW).await, Err(TokenRefused::Unknown));

        let mut transaction = store.begin().await.unwrap();
        assert_eq!(consume(&mut transaction, &same_id, NOW).await.unwrap(), Err(TokenRefused::Unknown));
        assert!(consume(&mut transaction, &token, NOW).await.unwrap().is_ok());
        assert_eq!(consume(&mut transaction, &token, NOW).await.unwrap(), Err(TokenRefused::Used));
        transaction.rollback().await.unwrap();
        assert_eq!(check(&token, NOW).await, Ok(()), "a rolled back use is not one");

        assert!(store.revoke_token(token.id(), NOW).await.unwrap());
        assert!(store.revoke_token(token.id(), NOW + 5).await.unwrap(), "idempotent");
        assert_eq!(store.tokens(None).await.unwrap()[0].revoked_at, Some(NOW));
        assert_eq!(check(&token, NOW).await, Err(TokenRefused::Revoked));
        assert!(!store.revoke_token("none", NOW).await.unwrap());
    }
}
