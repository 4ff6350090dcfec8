//! Named policies of a workspace. What is in one is not the store's business.

use lattice_wire::WorkspaceId;
use sqlx::{AnyConnection, FromRow};

use super::{
    Page, Store, StoreError,
    columns::text,
    workspaces::{self, Change},
};

/// A policy to be made.
#[derive(Debug, Clone)]
pub struct NewPolicy {
    /// A fresh id.
    pub id: String,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace.
    pub name: String,
    /// What it says, as JSON.
    pub spec: String,
    /// Unix seconds from which on it says nothing any more.
    pub expires_at: Option<i64>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct PolicyRow {
    /// Its id.
    pub id: String,
    /// Its workspace.
    #[sqlx(try_from = "String")]
    pub workspace: WorkspaceId,
    /// Its name.
    pub name: String,
    /// What it says, as JSON.
    pub spec: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds from which on it says nothing any more.
    pub expires_at: Option<i64>,
}

impl Store {
    /// Adds a policy. `None` when its name is taken.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_policy(&self, new: NewPolicy, now: i64) -> Result<Option<PolicyRow>, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM policies WHERE workspace = $1 AND name = $2 AND expires_at <= $3")
            .bind(new.workspace.as_str())
            .bind(new.name.as_str())
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        let row: Option<PolicyRow> = sqlx::query_as(
            "INSERT INTO policies (id, workspace, name, spec, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (workspace, name) DO NOTHING RETURNING *",
        )
        .bind(new.id)
        .bind(new.workspace.as_str())
        .bind(new.name)
        .bind(new.spec)
        .bind(now)
        .bind(new.expires_at)
        .fetch_optional(&mut *transaction)
        .await?;
        if row.is_some() {
            workspaces::bump(&mut transaction, &new.workspace, Change::Rules).await?;
            transaction.commit().await?;
        }
        Ok(row)
    }

    /// The policies of a workspace, or of all, that are in force, by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_policies(
        &self,
        workspace: Option<&WorkspaceId>,
        page: &Page,
        now: i64,
    ) -> Result<Vec<PolicyRow>, StoreError> {
        let select = "SELECT * FROM policies WHERE ($1 IS NULL OR workspace = $1) AND ($2 IS NULL OR id > $2) \
                      AND (expires_at IS NULL OR expires_at > $3) ORDER BY id LIMIT $4";
        Ok(sqlx::query_as(select)
            .bind(workspace.map(WorkspaceId::as_str))
            .bind(page.after.as_deref())
            .bind(now)
            .bind(page.rows())
            .fetch_all(&self.read)
            .await?)
    }

    /// A policy that is in force, by its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy(
        &self,
        workspace: &WorkspaceId,
        name: &str,
        now: i64,
    ) -> Result<Option<PolicyRow>, StoreError> {
        let select = "SELECT * FROM policies WHERE workspace = $1 AND name = $2 \
                      AND (expires_at IS NULL OR expires_at > $3)";
        Ok(sqlx::query_as(select)
            .bind(workspace.as_str())
            .bind(name)
            .bind(now)
            .fetch_optional(&self.read)
            .await?)
    }

    /// Removes a policy. False when there is none of that name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_policy(&self, workspace: &WorkspaceId, name: &str) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let removed = sqlx::query("DELETE FROM policies WHERE workspace = $1 AND name = $2")
            .bind(workspace.as_str())
            .bind(name)
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            return Ok(false);
        }
        workspaces::bump(&mut transaction, workspace, Change::Rules).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Removes the policies whose time is over. Returns the workspaces whose maps are newer now, each once.
    ///
    /// # Errors
    /// When the database fails; then nothing is removed.
    pub async fn expire_policies(&self, now: i64) -> Result<Vec<WorkspaceId>, StoreError> {
        let over = "SELECT id FROM policies WHERE expires_at <= $1 LIMIT 1";
        if sqlx::query(over).bind(now).fetch_optional(&self.read).await?.is_none() {
            return Ok(vec![]);
        }
        let mut transaction = self.begin().await?;
        let rows = sqlx::query("DELETE FROM policies WHERE expires_at <= $1 RETURNING workspace")
            .bind(now)
            .fetch_all(&mut *transaction)
            .await?;
        let mut workspaces: Vec<WorkspaceId> =
            rows.iter().map(|row| text(row, "workspace")).collect::<Result<_, _>>()?;
        workspaces.sort();
        workspaces.dedup();
        for workspace in &workspaces {
            workspaces::bump(&mut transaction, workspace, Change::Rules).await?;
        }
        transaction.commit().await?;
        Ok(workspaces)
    }
}

pub(super) async fn in_force(
    connection: &mut AnyConnection,
    workspace: &WorkspaceId,
    now: i64,
) -> Result<Vec<PolicyRow>, sqlx::Error> {
    let select = "SELECT * FROM policies WHERE workspace = $1 AND (expires_at IS NULL OR expires_at > $2) \
                  ORDER BY name";
    sqlx::query_as(select).bind(workspace.as_str()).bind(now).fetch_all(connection).await
}
