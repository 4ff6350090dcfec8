//! Address leases: which peer holds which overlay address, and which addresses rest because their peer was removed.

use std::{net::Ipv4Addr, sync::atomic::Ordering};

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

    /// Leases the lowest free address to `peer`; forgets leases that have rested long enough. `None` when none is free.
    ///
    /// Looks where the last one was found, or lower when an address has become free: else each lease would cost a look at all
    /// the others. Another latticed may have freed a lower one, so before it gives up it looks at all.
    pub(super) async fn lease(
        &self,
        connection: &mut AnyConnection,
        peer: &PeerId,
        now: i64,
    ) -> Result<Option<Ipv4Addr>, sqlx::Error> {
        let freed: Vec<(i64,)> = sqlx::query_as("DELETE FROM leases WHERE free_at <= $1 RETURNING address")
            .bind(now)
            .fetch_all(&mut *connection)
            .await?;
        let (first, last) = (self.pool.first(), self.pool.last());
        let freed = freed.into_iter().filter_map(|(bits,)| of_bits(bits)).min().unwrap_or(last);
        let from = freed.min(Ipv4Addr::from_bits(self.lowest.load(Ordering::Relaxed))).max(first);
        let leased = match lease_from(connection, from, last, peer).await? {
            None if from > first => lease_from(connection, first, last, peer).await?,
            found => found,
        };
        // Itself, not what follows: it is free again should the transaction fail.
        self.lowest.store(leased.unwrap_or(first).to_bits(), Ordering::Relaxed);
        Ok(leased)
    }
}

/// Leases the lowest free address from `first` on to `peer`.
async fn lease_from(
    connection: &mut AnyConnection,
    first: Ipv4Addr,
    last: Ipv4Addr,
    peer: &PeerId,
) -> Result<Option<Ipv4Addr>, sqlx::Error> {
    // The lowest free address is the first, or follows a leased one.
    let leased: Option<(i64,)> = sqlx::query_as(
        "INSERT INTO leases (address, peer) \
         SELECT free, $3 FROM ( \
             SELECT $1 AS free WHERE NOT EXISTS (SELECT 1 FROM leases WHERE address = $1) \
             UNION ALL \
             SELECT * FROM ( \
                 SELECT address + 1 FROM leases AS l \
                 WHERE address BETWEEN $1 AND $2 - 1 \
                   AND NOT EXISTS (SELECT 1 FROM leases AS n WHERE n.address = l.address + 1 AND n.address > $1) \
                 ORDER BY address LIMIT 1) AS following \
         ) AS candidates ORDER BY free LIMIT 1 \
         RETURNING address",
    )
    .bind(Address::bits(first))
    .bind(Address::bits(last))
    .bind(peer.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(leased.and_then(|(address,)| of_bits(address)))
}

/// `None` for what is no address, which the schema does not let in.
fn of_bits(bits: i64) -> Option<Ipv4Addr> {
    u32::try_from(bits).ok().map(Ipv4Addr::from_bits)
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
