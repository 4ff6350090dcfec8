//! Pages of a list: what follows the last one that the reader has, so that rows which come and go shift nothing.

use lattice_wire::WorkspaceId;
use sqlx::{FromRow, any::AnyRow};

use super::{Store, StoreError};

/// Which part of a list is asked for.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The key of the last row that the reader has.
    pub after: Option<String>,
    /// How many rows are wanted. One more is returned when there is one.
    pub limit: u32,
}

impl Store {
    /// The rows of a page. `select` takes the workspace ($1, NULL for all), the key before ($2, NULL at the beginning) and how many
    /// rows ($3).
    pub(super) async fn page<T>(
        &self,
        select: &'static str,
        workspace: Option<&WorkspaceId>,
        page: &Page,
    ) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> FromRow<'r, AnyRow> + Send + Unpin,
    {
        Ok(sqlx::query_as(select)
            .bind(workspace.map(WorkspaceId::as_str))
            .bind(page.after.as_deref())
            .bind(page.rows())
            .fetch_all(&self.read)
            .await?)
    }
}

impl Page {
    /// The whole list.
    #[cfg(test)]
    pub fn all() -> Self {
        Self { after: None, limit: u32::MAX }
    }

    pub(super) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}
