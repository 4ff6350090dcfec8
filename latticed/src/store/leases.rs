//! Address leases: which peer holds which overlay address.

use std::net::Ipv4Addr;

use lattice_wire::PeerId;
use sqlx::SqliteConnection;

use super::{Store, StoreError};
use crate::pool::Pool;

impl Store {
    pub(super) async fn check_leases(&self) -> Result<(), StoreError> {
        let outside: Option<(u32,)> =
            sqlx::query_as("SELECT address FROM leases WHERE address NOT BETWEEN ? AND ? LIMIT 1")
                .bind(self.pool.first().to_bits())
                .bind(self.pool.last().to_bits())
                .fetch_optional(&self.read)
                .await?;
        match outside {
            None => Ok(()),
            Some((address,)) => {
                Err(StoreError::OutsidePool { pool: self.pool, address: Ipv4Addr::from_bits(address) })
            }
        }
    }
}

/// Leases the lowest free address to `peer`. `None` when there is none.
pub(super) async fn lease(
    connection: &mut SqliteConnection,
    pool: Pool,
    peer: &PeerId,
) -> Result<Option<Ipv4Addr>, sqlx::Error> {
    // The lowest free address is the first of the pool, or follows a leased one.
    let leased: Option<(u32,)> = sqlx::query_as(
        "INSERT INTO leases (address, peer) \
         SELECT free, ?3 FROM ( \
             SELECT ?1 AS free WHERE NOT EXISTS (SELECT 1 FROM leases WHERE address = ?1) \
             UNION ALL \
             SELECT * FROM ( \
                 SELECT address + 1 FROM leases AS l \
                 WHERE address BETWEEN ?1 AND ?2 - 1 \
                   AND NOT EXISTS (SELECT 1 FROM leases WHERE address = l.address + 1) \
                 ORDER BY address LIMIT 1) \
         ) LIMIT 1 \
         RETURNING address",
    )
    .bind(pool.first().to_bits())
    .bind(pool.last().to_bits())
    .bind(peer.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(leased.map(|(address,)| Ipv4Addr::from_bits(address)))
}

/// Frees the address of `peer`.
pub(super) async fn release(connection: &mut SqliteConnection, peer: &PeerId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM leases WHERE peer = ?").bind(peer.as_str()).execute(connection).await.map(drop)
}
