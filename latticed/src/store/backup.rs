//! A copy of a SQLite database that is in use.

use std::path::Path;

use super::{Database, Store, StoreError, lineage};

impl Store {
    /// Copies the database as it is now into the new file `path`, while others go on reading and writing. Whoever opens the copy first
    /// begins another epoch with it. False for Postgres, which
    /// has tools of its own.
    ///
    /// # Errors
    /// When there is such a file already, or it cannot be written.
    pub async fn copy_to(&self, path: &Path) -> Result<bool, StoreError> {
        if matches!(self.database, Database::Postgres(_)) {
            return Ok(false);
        }
        let failed = |source| StoreError::Copy { path: path.to_owned(), source };
        sqlx::query("VACUUM INTO $1")
            .bind(path.display().to_string())
            .execute(&self.read)
            .await
            .map_err(failed)?;
        lineage::forget(&Database::Sqlite(path.to_owned())).await.map_err(failed)?;
        Ok(true)
    }
}
