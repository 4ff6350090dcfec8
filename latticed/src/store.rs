//! What latticed remembers, in SQLite: one file per noun, every change one transaction.
//!
//! SQLite has one writer at a time. Writes therefore share one connection and queue for it here, in order, instead of
//! retrying on `SQLITE_BUSY`; reads have connections of their own and see one snapshot each (WAL).

pub mod enroll;
mod leases;
pub mod netmap;
pub mod peers;
mod revoked;
pub mod tokens;
pub mod workspaces;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    Connection as _, Sqlite, SqlitePool, Transaction,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::pool::Pool;

const READERS: u32 = 4;

/// Why the store failed. Never the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The file is no database, damaged, or not to be written.
    #[error(
        "cannot open the database {}: {source}; restore it from a backup, or move it away to begin anew, and then every peer must enrol again",
        path.display()
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// How it failed.
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date.
    #[error("cannot migrate the database: {0}; a database written by a newer latticed needs that version")]
    Migrate(#[from] MigrateError),
    /// The pool was changed under living leases.
    #[error(
        "--pool {pool} does not contain the leased address {address}: give the pool that it was leased from, or remove its peer first"
    )]
    OutsidePool {
        /// The configured pool.
        pool: Pool,
        /// An address that is in use.
        address: std::net::Ipv4Addr,
    },
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    read: SqlitePool,
    write: SqlitePool,
    pool: Pool,
}

impl Store {
    /// Opens the database at `path`, making it and bringing its schema up to date.
    ///
    /// # Errors
    /// When it cannot be opened, or holds leases outside `pool`.
    pub async fn open(path: &Path, pool: Pool) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A spent token must stay spent through a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let connect = |connections| {
            let options = options.clone();
            SqlitePoolOptions::new()
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(Duration::from_secs(10))
                // SQLite ends a transaction itself when the disk is full. sqlx does not notice, and would refuse every
                // later one on this connection.
                .before_acquire(|connection, _| {
                    let is_sound = !connection.is_in_transaction();
                    Box::pin(async move { Ok(is_sound) })
                })
                .connect_with(options)
        };
        let refused = |source| StoreError::Open { path: path.to_owned(), source };
        let write = connect(1).await.map_err(refused)?;
        check(&write).await.map_err(refused)?;
        sqlx::migrate!().run(&write).await?;
        let store = Self { read: connect(READERS).await?, write, pool };
        store.check_leases().await?;
        Ok(store)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> bool {
        sqlx::query("SELECT 1").execute(&self.read).await.is_ok()
    }

    /// Closes the database; its write-ahead log is folded into it.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// A transaction that holds the write lock from its first statement on.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.write.begin_with("BEGIN IMMEDIATE").await
    }
}

/// Damage is said now, not by whichever request meets it first.
async fn check(database: &SqlitePool) -> Result<(), sqlx::Error> {
    let (verdict,): (String,) = sqlx::query_as("PRAGMA quick_check(1)").fetch_one(database).await?;
    if verdict == "ok" { Ok(()) } else { Err(sqlx::Error::Protocol(verdict)) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A store in a directory of its own.
    pub(crate) async fn store(pool: &str) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("lattice.db"), pool.parse().unwrap()).await.unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn opens_its_own_database_again() {
        let (dir, store) = store("10.42.0.0/16").await;
        store.close().await;
        let again = Store::open(&dir.path().join("lattice.db"), "10.42.0.0/16".parse().unwrap()).await;
        assert!(again.unwrap().ping().await);
    }

    #[tokio::test]
    async fn a_damaged_database_is_named_with_the_remedy() {
        let (dir, store) = store("10.42.0.0/16").await;
        store.close().await;
        let path = dir.path().join("lattice.db");
        let whole = std::fs::read(&path).unwrap();
        let mut holed = whole.clone();
        holed[4096..].fill(0xa5);
        for damaged in
            [b"not a database at all, but long enough".repeat(200), whole[..whole.len() / 2].to_vec(), holed]
        {
            std::fs::write(&path, damaged).unwrap();
            let error = Store::open(&path, "10.42.0.0/16".parse().unwrap()).await.unwrap_err().to_string();
            assert!(error.contains("lattice.db") && error.contains("backup"), "{error}");
        }
    }
}
