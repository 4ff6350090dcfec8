//! Address leases: which peer holds which overlay address, and which addresses rest because their peer was removed.

use std::net::Ipv4Addr;

use lattice_wire::PeerId;
use sqlx::AnyConnection;

use super::{Store, StoreError, columns::Address};
use crate::pool::Pool;

impl Store {
    pub(super) async fn check_leases(&self) -> Result<(), StoreError> {
        let outside: Option<(i64,)> = sqlx::query_as(
            "SELECT address FROM leases WHERE free_at IS NULL AND address NOT BETWEEN $1 AND $2 LIMIT 1",
        )
        .bind(Address::bits(self.pool.first()))
        .bind(Address::bits(self.pool.last()))
        .fetch_optional(&self.read)
        .await?;
        let Some((address,)) = outside else { return Ok(()) };
        let address = u32::try_from(address).map_err(|e| sqlx::Error::Decode(e.into()))?;
        Err(StoreError::OutsidePool { pool: self.pool, address: Ipv4Addr::from_bits(address) })
    }
}

/// Leases the lowest free address to `peer`; forgets leases that have rested long enough. `None` when none is free.
pub(super) async fn lease(
    connection: &mut AnyConnection,
    pool: Pool,
    peer: &PeerId,
    now: i64,
) -> Result<Option<Ipv4Addr>, sqlx::Error> {
    sqlx::query("DELETE FROM leases WHERE free_at <= $1").bind(now).execute(&mut *connection).await?;
    // The lowest free address is the first of the pool, or follows a leased one.
    let leased: Option<(i64,)> = sqlx::query_as(
        "INSERT INTO leases (address, peer) \
         SELECT free, $3 FROM ( \
             SELECT $1 AS free WHERE NOT EXISTS (SELECT 1 FROM leases WHERE address = $1) \
             UNION ALL \
             SELECT * FROM ( \
                 SELECT address + 1 FROM leases AS l \
                 WHERE address BETWEEN $1 AND $2 - 1 \
                   AND NOT EXISTS (SELECT 1 FROM leases WHERE address = l.address + 1) \
                 ORDER BY address LIMIT 1) AS following \
         ) AS candidates ORDER BY free LIMIT 1 \
         RETURNING address",
    )
    .bind(Address::bits(pool.first()))
    .bind(Address::bits(pool.last()))
    .bind(peer.as_str())
    .fetch_optional(connection)
    .await?;
    // It lies in the pool, whose addresses are of 32 bits.
    Ok(leased.and_then(|(address,)| u32::try_from(address).ok()).map(Ipv4Addr::from_bits))
}

/// How many addresses of `pool` rest.
pub(super) async fn quarantined(connection: &mut AnyConnection, pool: Pool) -> Result<i64, sqlx::Error> {
    let select = "SELECT count(*) FROM leases WHERE free_at IS NOT NULL AND address BETWEEN $1 AND $2";
    let (count,) = sqlx::query_as(select)
        .bind(Address::bits(pool.first()))
        .bind(Address::bits(pool.last()))
        .fetch_one(connection)
        .await?;
    Ok(count)
}

/// Lets the address of `peer` rest until `free_at`.
pub(super) async fn release(
    connection: &mut AnyConnection,
    peer: &PeerId,
    free_at: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE leases SET free_at = $1 WHERE peer = $2")
        .bind(free_at)
        .bind(peer.as_str())
        .execute(connection)
        .await
        .map(drop)
}
