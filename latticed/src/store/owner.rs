//! Whose database this is: every latticed of it signs with the same keys and leases from the same pool.

use sqlx::FromRow;

use super::{Store, StoreError, lineage};

/// What the latticed of one database have in common. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Owner {
    /// Public key of the NATS operator.
    pub operator: String,
    /// Public key of NATS's own account.
    pub system_account: String,
    /// Public key of the account that latticed and peers live in.
    pub account: String,
    /// SHA-256 of the authority's certificate, in hexadecimal.
    pub authority: String,
    /// Public key by which relays know the tokens of peers.
    pub relay: String,
}

impl Owner {
    /// The files of the data directory in which `self` and `other` differ.
    fn differs(&self, other: &Self) -> Vec<&'static str> {
        let files = [
            ("operator.nk", self.operator != other.operator),
            ("system-account.nk", self.system_account != other.system_account),
            ("account.nk", self.account != other.account),
            ("ca.pem", self.authority != other.authority),
            ("relay.nk", self.relay != other.relay),
        ];
        files.into_iter().filter(|(_, differs)| *differs).map(|(file, _)| file).collect()
    }
}

impl Store {
    /// Claims a database that belongs to nobody yet, and refuses one that belongs to another owner or has another pool.
    ///
    /// # Errors
    /// When it is somebody else's, or fails.
    pub async fn claim(&self, owner: &Owner) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let insert = "INSERT INTO cluster (one, operator, system_account, account, authority, pool, relay) \
                      VALUES (1, $1, $2, $3, $4, $5, $6) ON CONFLICT (one) DO NOTHING";
        bind(insert, owner, &self.pool.to_string()).execute(&mut *transaction).await?;
        // A database that is older than relays.
        sqlx::query("UPDATE cluster SET relay = $1 WHERE relay IS NULL")
            .bind(owner.relay.clone())
            .execute(&mut *transaction)
            .await?;
        let found: Owner =
            sqlx::query_as("SELECT operator, system_account, account, authority, relay FROM cluster")
                .fetch_one(&mut *transaction)
                .await?;
        let (pool,): (String,) =
            sqlx::query_as("SELECT pool FROM cluster").fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        let differs = found.differs(owner);
        if !differs.is_empty() {
            return Err(StoreError::OtherOwner(differs.join(", ")));
        }
        if pool != self.pool.to_string() {
            return Err(StoreError::OtherPool { pool, given: self.pool });
        }
        Ok(())
    }

    /// Makes the database `owner`'s and its pool the one that it was opened with, whatever they were, and begins another epoch.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt(&self, owner: &Owner) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let upsert = "INSERT INTO cluster (one, operator, system_account, account, authority, pool, relay) \
                      VALUES (1, $1, $2, $3, $4, $5, $6) ON CONFLICT (one) DO UPDATE \
                      SET operator = $1, system_account = $2, account = $3, authority = $4, pool = $5, relay = $6";
        bind(upsert, owner, &self.pool.to_string()).execute(&mut *transaction).await?;
        lineage::reborn(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }
}

fn bind<'q>(
    statement: &'static str,
    owner: &Owner,
    pool: &str,
) -> sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments> {
    sqlx::query(statement)
        .bind(owner.operator.clone())
        .bind(owner.system_account.clone())
        .bind(owner.account.clone())
        .bind(owner.authority.clone())
        .bind(pool.to_owned())
        .bind(owner.relay.clone())
}
