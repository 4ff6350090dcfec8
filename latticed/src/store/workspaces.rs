//! Workspaces: the tenants.

use ipnet::Ipv6Net;
use lattice_policy::Overlay;
use lattice_wire::{PeerName, WorkspaceId};
use sqlx::{AnyConnection, FromRow};

use super::{Page, Store, StoreError, columns::Prefix};

/// A tenant.
#[derive(Debug, Clone, FromRow)]
pub struct Workspace {
    /// Its id.
    #[sqlx(try_from = "String")]
    pub id: WorkspaceId,
    /// Its name, unique, a DNS label like those of its peers.
    #[sqlx(try_from = "String")]
    pub name: PeerName,
    /// Its IPv6 addresses.
    #[sqlx(try_from = "String")]
    pub prefix: Prefix,
    /// Unix seconds.
    pub created_at: i64,
}

impl Store {
    /// Makes a workspace. `None` when the name is taken.
    ///
    /// # Errors
    /// When the database fails, or another workspace has the prefix, which its 40 random bits make improbable.
    pub async fn create_workspace(
        &self,
        id: WorkspaceId,
        name: PeerName,
        prefix: Ipv6Net,
        now: i64,
    ) -> Result<Option<Workspace>, StoreError> {
        let mut transaction = self.begin().await?;
        let inserted = sqlx::query(
            "INSERT INTO workspaces (id, name, prefix, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
        )
        .bind(id.as_str())
        .bind(name.as_str())
        .bind(prefix.to_string())
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok((inserted.rows_affected() == 1).then_some(Workspace {
            id,
            name,
            prefix: Prefix(prefix),
            created_at: now,
        }))
    }

    /// The workspaces, by name, which is the key of their pages.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workspaces(&self, page: &Page) -> Result<Vec<Workspace>, StoreError> {
        let select = "SELECT id, name, prefix, created_at FROM workspaces WHERE $1 IS NULL OR name > $1 ORDER BY name LIMIT $2";
        Ok(sqlx::query_as(select).bind(page.after.as_deref()).bind(page.rows()).fetch_all(&self.read).await?)
    }

    /// The workspace of that name or id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workspace(&self, name_or_id: &str) -> Result<Option<Workspace>, StoreError> {
        let select = "SELECT id, name, prefix, created_at FROM workspaces WHERE id = $1 OR name = $1";
        Ok(sqlx::query_as(select).bind(name_or_id).fetch_optional(&self.read).await?)
    }
}

impl Store {
    /// Where the addresses of a workspace with `prefix` lie.
    pub(super) fn overlay(&self, Prefix(prefix): Prefix) -> Result<Overlay, sqlx::Error> {
        Overlay::new(self.pool.net(), prefix).map_err(|error| sqlx::Error::Decode(error.into()))
    }
}

/// What a change is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Who is there, where, or until when.
    Peers,
    /// Policies or labels.
    Rules,
}

/// Makes the network maps of `workspace` newer, within the transaction that changes what they show. Peers whose `changed` is
/// NULL are those that it has changed.
pub(super) async fn bump(
    connection: &mut AnyConnection,
    workspace: &WorkspaceId,
    change: Change,
) -> Result<(), sqlx::Error> {
    let (generation,): (i64,) = sqlx::query_as(
        "UPDATE workspaces SET generation = generation + 1, \
                rules = CASE WHEN $2 = 1 THEN generation + 1 ELSE rules END \
         WHERE id = $1 RETURNING generation",
    )
    .bind(workspace.as_str())
    .bind(i64::from(change == Change::Rules))
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("UPDATE peers SET changed = $2 WHERE workspace = $1 AND changed IS NULL")
        .bind(workspace.as_str())
        .bind(generation)
        .execute(connection)
        .await
        .map(drop)
}
