//! Which database, and how to connect to it.

use std::{fmt, path::PathBuf, time::Duration};

use sqlx::{
    AnyConnection, AnyPool, Connection as _, Executor as _,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::Migrator,
    sqlite::SqliteConnectOptions,
};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// How long a request waits for a connection. Shorter than what the doors give it, so that it can say why it failed.
const ACQUIRE: Duration = Duration::from_secs(5);

/// Where what is remembered is kept.
#[derive(Debug, Clone)]
pub enum Database {
    /// In this file, for one latticed.
    Sqlite(PathBuf),
    /// In a server, for any number of them.
    Postgres(PostgresUrl),
}

/// `postgres://user:password@host/database`. Printed without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

/// Every transaction that writes takes this lock of the database first. The number is arbitrary.
const WRITE_LOCK: &str = "SELECT pg_advisory_xact_lock(5497854113905672290)";

impl Database {
    /// A pool of at most `connections`.
    pub(super) async fn connect(&self, connections: u32) -> Result<AnyPool, sqlx::Error> {
        let prepare = self.prepare();
        AnyPoolOptions::new()
            .max_connections(connections)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(ACQUIRE)
            .after_connect(move |connection, _| {
                Box::pin(async move { connection.execute(prepare).await.map(drop) })
            })
            // SQLite ends a transaction itself when the disk is full. sqlx does not notice, and would refuse every
            // later one on this connection.
            .before_acquire(|connection, _| {
                let is_sound = !connection.is_in_transaction();
                Box::pin(async move { Ok(is_sound) })
            })
            .connect_with(self.options()?)
            .await
    }

    pub(super) fn options(&self) -> Result<AnyConnectOptions, sqlx::Error> {
        match self {
            Self::Sqlite(path) => {
                use sqlx::ConnectOptions as _;
                let url = SqliteConnectOptions::new().filename(path).create_if_missing(true).to_url_lossy();
                AnyConnectOptions::from_url(&url)
            }
            Self::Postgres(url) => url.parse(),
        }
    }

    /// What each connection begins with.
    fn prepare(&self) -> &'static str {
        match self {
            // A spent token must stay spent through a power cut.
            Self::Sqlite(_) => {
                "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"
            }
            // A latticed that hangs must not keep the others from writing. Asked of the server, which outlives it.
            Self::Postgres(_) => {
                "SET lock_timeout = '5s'; SET statement_timeout = '15s'; \
                 SET idle_in_transaction_session_timeout = '15s'; SET application_name = 'latticed'"
            }
        }
    }

    /// How a transaction that writes begins, and what it does first. There is one at a time.
    pub(super) fn begin_write(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Sqlite(_) => ("BEGIN IMMEDIATE", None),
            Self::Postgres(_) => ("BEGIN", Some(WRITE_LOCK)),
        }
    }

    /// How a transaction begins that reads several times from one state.
    pub(super) fn begin_read(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    pub(super) fn migrations(&self) -> &'static Migrator {
        match self {
            Self::Sqlite(_) => &SQLITE,
            Self::Postgres(_) => &POSTGRES,
        }
    }

    /// Connects once, without a pool, which would hide for a while how it failed. Damage is said here too, not by whichever request
    /// meets it first; Postgres looks after its files itself.
    pub(super) async fn check(&self) -> Result<(), sqlx::Error> {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect_with(&self.options()?).await?;
        connection.execute(self.prepare()).await?;
        if matches!(self, Self::Sqlite(_)) {
            let verdict = sqlx::query_as("PRAGMA quick_check(1)").fetch_one(&mut connection);
            let (verdict,): (String,) = verdict.await?;
            if verdict != "ok" {
                return Err(sqlx::Error::Protocol(verdict));
            }
        }
        connection.close().await
    }

    /// What to do when it cannot be opened.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => {
                "restore it from a backup, or move it away to begin anew, and then every peer must enrol again"
            }
            Self::Postgres(_) => {
                "check that Postgres is up and that --database-url names its host, a user that may log in and an existing database"
            }
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl PostgresUrl {
    /// Whether a password is in it.
    pub fn has_password(&self) -> bool {
        self.parse().map_or(true, |options| {
            let url = options.database_url;
            url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password")
        })
    }

    /// With its password.
    #[cfg(test)]
    pub fn exposed(&self) -> &str {
        &self.0
    }

    /// No word about what is wrong with it: that would quote it.
    fn parse(&self) -> Result<AnyConnectOptions, sqlx::Error> {
        let invalid = || sqlx::Error::Configuration("expected postgres://user:password@host/database".into());
        if !["postgres://", "postgresql://"].iter().any(|scheme| self.0.starts_with(scheme)) {
            return Err(invalid());
        }
        self.0.parse().map_err(|_| invalid())
    }
}

/// Whatever it is: a refusal of the command line would print it.
impl From<String> for PostgresUrl {
    fn from(text: String) -> Self {
        Self(text.trim().to_owned())
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(options) = self.parse() else { return f.write_str("(not a Postgres URL)") };
        let url = options.database_url;
        write!(f, "postgres://{}", url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        for text in [
            "postgres://me:s3cret@db.example/lattice",
            "postgres://db.example/lattice?user=me&password=s3cret",
            "postgres:me:s3cret@db.example",
            "s3cret",
            "mysql://me:s3cret@db.example/lattice",
        ] {
            let url = PostgresUrl::from(text.to_owned());
            let shown = format!("{url} {url:?} {:?} {}", url.parse(), Database::Postgres(url.clone()));
            // What cannot be read is not connected to either.
            let shown = if url.parse().is_ok() { format!("{url} {url:?}") } else { shown };
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(url.has_password());
        }
        let url = PostgresUrl::from("postgres://me@db.example:5433/lattice\n".to_owned());
        assert_eq!(url.to_string(), "postgres://db.example:5433/lattice");
        assert!(!url.has_password());
    }
}
