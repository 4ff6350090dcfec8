//! Workspaces: the tenants.

use lattice_wire::{PeerName, WorkspaceId};
use sqlx::{FromRow, SqliteConnection};

use super::{Store, StoreError};

/// A tenant.
#[derive(Debug, Clone, FromRow)]
pub struct Workspace {
    /// Its id.
    #[sqlx(try_from = "String")]
    pub id: WorkspaceId,
    /// Its name, unique, a DNS label like those of its peers.
    #[sqlx(try_from = "String")]
    pub name: PeerName,
    /// Unix seconds.
    pub created_at: i64,
}

impl Store {
    /// Makes a workspace. `None` when the name is taken.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_workspace(
        &self,
        id: WorkspaceId,
        name: PeerName,
        now: i64,
    ) -> Result<Option<Workspace>, StoreError> {
        let inserted = sqlx::query(
            "INSERT INTO workspaces (id, name, created_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
        )
        .bind(id.as_str())
        .bind(name.as_str())
        .bind(now)
        .execute(&self.write)
        .await?;
        Ok((inserted.rows_affected() == 1).then_some(Workspace { id, name, created_at: now }))
    }

    /// Every workspace, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workspaces(&self) -> Result<Vec<Workspace>, StoreError> {
        let select = "SELECT id, name, created_at FROM workspaces ORDER BY name";
        Ok(sqlx::query_as(select).fetch_all(&self.read).await?)
    }

    /// The workspace of that name or id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workspace(&self, name_or_id: &str) -> Result<Option<Workspace>, StoreError> {
        let select = "SELECT id, name, created_at FROM workspaces WHERE id = ?1 OR name = ?1";
        Ok(sqlx::query_as(select).bind(name_or_id).fetch_optional(&self.read).await?)
    }
}

/// Makes the network maps of `workspace` newer, within the transaction that changes what they show.
pub(super) async fn bump(
    connection: &mut SqliteConnection,
    workspace: &WorkspaceId,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE workspaces SET generation = generation + 1 WHERE id = ?")
        .bind(workspace.as_str())
        .execute(connection)
        .await
        .map(drop)
}
