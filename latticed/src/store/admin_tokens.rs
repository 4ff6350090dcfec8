//! Admin tokens: who may use the HTTP API, and as what. Kept as hashes.

use lattice_wire::WorkspaceId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, FromRow, Row as _, any::AnyRow};
use subtle::ConstantTimeEq as _;

use super::{
    Page, Store, StoreError,
    columns::{Unknown, flag, maybe, text},
};

/// What the holder of an admin token may do. The greater may all that the lesser may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read.
    Viewer,
    /// And manage peers, tokens and policies.
    Operator,
    /// And everything else.
    Admin,
}

/// An admin token to be made.
#[derive(Debug, Clone)]
pub struct NewAdminToken {
    /// Its public part.
    pub id: String,
    /// For people.
    pub name: String,
    /// SHA-256 of its secret part.
    pub secret_hash: [u8; 32],
    /// What it permits.
    pub role: Role,
    /// Where. `None`: everywhere.
    pub workspace: Option<WorkspaceId>,
    /// It permits nothing but to be exchanged, once.
    pub one_time: bool,
    /// Unix seconds. `None`: it has no end.
    pub expires_at: Option<i64>,
    /// Who made it.
    pub created_by: String,
}

/// What replaces a one-time token. It has the role and workspace of that.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The public part of the new one.
    pub id: String,
    /// For people.
    pub name: String,
    /// SHA-256 of its secret part.
    pub secret_hash: [u8; 32],
    /// Unix seconds. `None`: it has no end.
    pub expires_at: Option<i64>,
}

/// An admin token, without its secret.
#[derive(Debug, Clone)]
pub struct AdminRow {
    /// Its public part.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it permits.
    pub role: Role,
    /// Where. `None`: everywhere.
    pub workspace: Option<WorkspaceId>,
    /// It permits nothing but to be exchanged, once.
    pub one_time: bool,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds. `None`: it has no end.
    pub expires_at: Option<i64>,
    /// When it was revoked, or exchanged. Unix seconds.
    pub revoked_at: Option<i64>,
    /// Who made it: for one that replaces a one-time token, that token's id.
    pub created_by: String,
}

impl Store {
    /// Remembers a new admin token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_admin_token(&self, new: &NewAdminToken, now: i64) -> Result<AdminRow, StoreError> {
        let mut transaction = self.begin().await?;
        let row = insert(&mut transaction, new, now).await?;
        transaction.commit().await?;
        Ok(row)
    }

    /// The admin tokens of a workspace, or all, by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn admin_tokens(
        &self,
        workspace: Option<&WorkspaceId>,
        page: &Page,
    ) -> Result<Vec<AdminRow>, StoreError> {
        let select = "SELECT * FROM admin_tokens WHERE ($1 IS NULL OR workspace = $1) AND ($2 IS NULL OR id > $2) \
                      ORDER BY id LIMIT $3";
        self.page(select, workspace, page).await
    }

    /// An admin token by its public part.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn admin_token(&self, id: &str) -> Result<Option<AdminRow>, StoreError> {
        let select = "SELECT * FROM admin_tokens WHERE id = $1";
        Ok(sqlx::query_as(select).bind(id).fetch_optional(&self.read).await?)
    }

    /// Whether there ever was one. Revoking the last does not open the door again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_admin_tokens(&self) -> Result<bool, StoreError> {
        Ok(sqlx::query("SELECT id FROM admin_tokens LIMIT 1").fetch_optional(&self.read).await?.is_some())
    }

    /// Revokes an admin token; one that is revoked stays so. False when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_admin_token(&self, id: &str, now: i64) -> Result<bool, StoreError> {
        let update = "UPDATE admin_tokens SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2";
        let mut transaction = self.begin().await?;
        let updated = sqlx::query(update).bind(now).bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(updated.rows_affected() == 1)
    }

    /// The row of an admin token that is known, not revoked and not over, and is not one that can only be exchanged.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn admin_bearer(
        &self,
        id: &str,
        secret_hash: &[u8; 32],
        now: i64,
    ) -> Result<Option<AdminRow>, StoreError> {
        let mut connection = self.read.acquire().await?;
        let row = known(&mut connection, id, secret_hash).await?;
        Ok(row.filter(|row| row.is_valid(now) && !row.one_time))
    }

    /// Replaces a one-time token by another. Exactly one caller gets it; `None` for everybody else.
    ///
    /// # Errors
    /// When the database fails; then the one-time token is still good.
    pub async fn exchange_one_time(
        &self,
        id: &str,
        secret_hash: &[u8; 32],
        new: Exchange,
        now: i64,
    ) -> Result<Option<AdminRow>, StoreError> {
        let mut transaction = self.begin().await?;
        let old = known(&mut transaction, id, secret_hash).await?;
        let Some(old) = old.filter(|row| row.is_valid(now) && row.one_time) else { return Ok(None) };
        let update =
            "UPDATE admin_tokens SET revoked_at = $1 WHERE id = $2 AND one_time = 1 AND revoked_at IS NULL";
        let taken = sqlx::query(update).bind(now).bind(id).execute(&mut *transaction).await?;
        if taken.rows_affected() == 0 {
            return Ok(None);
        }
        let new = NewAdminToken {
            id: new.id,
            name: new.name,
            secret_hash: new.secret_hash,
            role: old.role,
            workspace: old.workspace,
            one_time: false,
            expires_at: new.expires_at,
            created_by: old.id,
        };
        let row = insert(&mut transaction, &new, now).await?;
        transaction.commit().await?;
        Ok(Some(row))
    }
}

impl AdminRow {
    fn is_valid(&self, now: i64) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| at > now)
    }
}

async fn insert(
    connection: &mut AnyConnection,
    new: &NewAdminToken,
    now: i64,
) -> Result<AdminRow, sqlx::Error> {
    sqlx::query_as(
        "INSERT INTO admin_tokens (id, name, secret_hash, role, workspace, one_time, created_at, expires_at, created_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *",
    )
    .bind(new.id.as_str())
    .bind(new.name.as_str())
    .bind(new.secret_hash.as_slice())
    .bind(new.role.as_str())
    .bind(new.workspace.as_ref().map(WorkspaceId::as_str))
    .bind(i64::from(new.one_time))
    .bind(now)
    .bind(new.expires_at)
    .bind(new.created_by.as_str())
    .fetch_one(connection)
    .await
}

/// The row of a token, whatever its state, when its secret is right.
async fn known(
    connection: &mut AnyConnection,
    id: &str,
    secret_hash: &[u8; 32],
) -> Result<Option<AdminRow>, sqlx::Error> {
    let select = "SELECT * FROM admin_tokens WHERE id = $1";
    let Some(row) = sqlx::query(select).bind(id).fetch_optional(connection).await? else { return Ok(None) };
    let stored: Vec<u8> = row.try_get("secret_hash")?;
    if !bool::from(stored.ct_eq(secret_hash.as_slice())) {
        return Ok(None);
    }
    AdminRow::from_row(&row).map(Some)
}

impl Role {
    /// The column, and how people are told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl TryFrom<String> for Role {
    type Error = Unknown;
    fn try_from(value: String) -> Result<Self, Unknown> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == value)
            .ok_or(Unknown { what: "role", value })
    }
}

impl FromRow<'_, AnyRow> for AdminRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            role: text(row, "role")?,
            workspace: maybe(row, "workspace")?,
            one_time: flag(row, "one_time")?,
            created_at: row.try_get("created_at")?,
            expires_at: row.try_get("expires_at")?,
            revoked_at: row.try_get("revoked_at")?,
            created_by: row.try_get("created_by")?,
        })
    }
}
