//! What latticed remembers, in SQLite or Postgres: one file per noun, every change one transaction.
//!
//! The SQL is written once, in what both databases understand. Both have one writer at a time: SQLite by nature, Postgres because every
//! transaction that writes takes one lock first, whichever latticed it belongs to. So what a transaction has read is still true when
//! it writes. Writes of one latticed share one connection and queue for it here, in order, instead of retrying; reads have
//! connections of their own.

pub mod admin_tokens;
pub mod backup;
mod columns;
mod database;
pub mod enroll;
pub mod events;
pub mod expiry;
mod leases;
mod lineage;
pub mod netmap;
pub mod owner;
mod page;
pub mod peers;
pub mod policies;
pub mod presence;
pub mod prune;
pub mod repeat;
pub mod reserve;
pub mod tokens;
pub mod workspaces;

#[cfg(test)]
mod contract;

use std::sync::{Arc, atomic::AtomicU32};

use sqlx::{Any, AnyPool, Transaction, migrate::MigrateError};

pub use database::{Database, PostgresUrl};
pub use page::Page;

use crate::pool::Pool;

const READERS: u32 = 4;

/// Why the store failed. Never the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("database: {0}")]
    Sql(sqlx::Error),
    /// It is away, or too busy. The next request tries again.
    #[error("the database does not answer: {0}; it is asked again with the next request")]
    Away(sqlx::Error),
    /// There is no room for what was to be written. What is there can still be read.
    #[error("the database takes no more: {0}; make room on its disk")]
    Full(sqlx::Error),
    /// It is no database, damaged, not to be written or not to be reached.
    #[error("cannot open the database {database}: {source}; {remedy}")]
    Open {
        /// Which one, without its password.
        database: String,
        /// How it failed.
        source: sqlx::Error,
        /// What to do.
        remedy: &'static str,
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
    /// Its peers trust other keys than ours.
    #[error(
        "the database belongs to a latticed with another {0}: copy operator.nk, system-account.nk, account.nk, relay.nk, ca.key and ca.pem from its data directory into this one; if those are lost, stop every latticed of this database and run `latticed adopt` once"
    )]
    OtherOwner(String),
    /// Other latticed lease from another pool.
    #[error(
        "every latticed of this database leases from {pool}, and this one from {given}: give --pool {pool}; to change it, stop every latticed of this database and run `latticed adopt --pool {given}` once"
    )]
    OtherPool {
        /// The database's.
        pool: String,
        /// The configured one.
        given: Pool,
    },
    /// A backup cannot be written.
    #[error("cannot copy the database to {}: {source}; is there room?", path.display())]
    Copy {
        /// Where to.
        path: std::path::PathBuf,
        /// How it failed.
        source: sqlx::Error,
    },
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
    read: AnyPool,
    write: AnyPool,
    pool: Pool,
    quarantine: i64,
    /// Where to look for a free address: see `lease`.
    lowest: Arc<AtomicU32>,
}

impl Store {
    /// Opens the database, bringing its schema up to date. A SQLite file is made when there is none. An address is leased again
    /// `quarantine` seconds after its peer was removed, and not before.
    ///
    /// # Errors
    /// When it cannot be opened, or holds leases outside `pool`.
    pub async fn open(database: &Database, pool: Pool, quarantine: i64) -> Result<Self, StoreError> {
        let refused =
            |source| StoreError::Open { database: database.to_string(), source, remedy: database.remedy() };
        database.check().await.map_err(refused)?;
        let write = database.connect(1).await.map_err(refused)?;
        database.migrations().run(&write).await?;
        let read = database.connect(READERS).await.map_err(refused)?;
        let store =
            Self { database: database.clone(), read, write, pool, quarantine, lowest: Arc::default() };
        store.check_leases().await?;
        store.be_born().await?;
        Ok(store)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> bool {
        sqlx::query("SELECT 1").execute(&self.read).await.is_ok()
    }

    /// Closes the database. SQLite folds its write-ahead log into it.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// A transaction that nobody else writes beside. Rolled back unless it is committed.
    async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let (begin, lock) = self.database.begin_write();
        let mut transaction = self.write.begin_with(begin).await?;
        if let Some(lock) = lock {
            sqlx::query(lock).execute(&mut *transaction).await?;
        }
        Ok(transaction)
    }

    /// A transaction whose reads all see the same state.
    async fn begin_read(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.read.begin_with(self.database.begin_read()).await
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error::{Io, PoolClosed, PoolTimedOut, WorkerCrashed};
        if matches!(error, Io(_) | PoolClosed | PoolTimedOut | WorkerCrashed) {
            return Self::Away(error);
        }
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        // Postgres says it in five characters, SQLite in a number.
        match code.as_str() {
            "53100" | "13" => Self::Full(error),
            // Somebody else writes for too long; too many connections.
            "55P03" | "53300" | "5" => Self::Away(error),
            // Of class 57: it is being stopped or started.
            code if code.len() == 5 && code.starts_with("57") => Self::Away(error),
            _ => Self::Sql(error),
        }
    }
}
