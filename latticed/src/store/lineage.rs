//! Which history a database counts its generations in. One that is restored goes back in it and takes another way from there, so that
//! a generation which was given away before may come again and mean something else. Its epoch is another one then.

use sqlx::{AnyConnection, Connection as _};

use super::{Database, Store, StoreError};
use crate::keys::random;

impl Store {
    /// Makes the number that the epoch is made of, where there is none: the database is new, or was restored from a backup.
    pub(super) async fn be_born(&self) -> Result<(), StoreError> {
        if sqlx::query("SELECT one FROM lineage").fetch_optional(&self.read).await?.is_some() {
            return Ok(());
        }
        let insert = "INSERT INTO lineage (one, born) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
        let mut transaction = self.begin().await?;
        sqlx::query(insert).bind(fresh()).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }
}

/// Begins another epoch.
pub(super) async fn reborn(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE lineage SET born = $1").bind(fresh()).execute(connection).await.map(drop)
}

/// Lets whoever opens this copy of a database begin another epoch, each time that it is restored.
pub(super) async fn forget(copy: &Database) -> Result<(), sqlx::Error> {
    let mut connection = AnyConnection::connect_with(&copy.options()?).await?;
    sqlx::query("DELETE FROM lineage").execute(&mut connection).await?;
    connection.close().await
}

/// Not below zero, which is how both databases keep it.
fn fresh() -> i64 {
    i64::from_be_bytes(random()) & i64::MAX
}
