//! Where the overlay's addresses lie, by what a network map says, and which of them a peer has.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use lattice_policy::Overlay;
use lattice_wire::{MapPeer, NetMap};

use crate::{Failure, Kind};

/// The overlay that `map` is about.
///
/// # Errors
/// [`Kind::Server`] when the host may not route it. A hostile server could else take over its way to the Internet.
pub(crate) fn of(map: &NetMap) -> Result<Overlay, Failure> {
    if !(is_private(map.pool) && map.pool.contains(&map.address)) {
        let text = format!(
            "latticed gives out {} from {}, which is no overlay pool: expected an address in a private network (RFC 1918, RFC 6598) of /8 or smaller",
            map.address, map.pool
        );
        return Err(Failure::new(Kind::Server, text));
    }
    Overlay::new(map.pool, map.prefix).map_err(|error| {
        Failure::new(Kind::Server, format!("latticed gives out IPv6 addresses, but {error}"))
    })
}

/// Where every workspace's IPv6 prefix lies.
pub(crate) use lattice_policy::overlay::ULA;

/// Whether `net` lies where an overlay may be.
pub(crate) fn is_private(net: Ipv4Net) -> bool {
    const PRIVATE: [(Ipv4Addr, u8); 5] = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
    ];
    PRIVATE.into_iter().any(|(at, len)| Ipv4Net::new_assert(at, len).contains(&net))
}

/// The receiver's own addresses.
pub(crate) fn own(overlay: &Overlay, map: &NetMap) -> [IpAddr; 2] {
    let address = map.address.addr();
    [address.into(), overlay.v6(address).into()]
}

/// What `peer` may use as source and is reached at: those of the pool that the map gives it, but the receiver's own, and of each the IPv6
/// addresses that follow from it. An IPv6 address that the map says itself is none of it.
pub(crate) fn of_peer(overlay: &Overlay, map: &NetMap, peer: &MapPeer) -> Vec<IpNet> {
    let v4 = peer.allowed_ips.iter().filter_map(|net| match net {
        IpNet::V4(net) => {
            Some(net).filter(|net| overlay.pool().contains(*net) && !net.contains(&map.address.addr()))
        }
        IpNet::V6(_) => None,
    });
    v4.flat_map(|net| [Some((*net).into()), overlay.twin(net).map(IpNet::V6)]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::tests::map;

    #[test]
    fn a_pool_is_a_private_network_that_holds_the_address() {
        let fits = |pool: &str, address: &str| {
            let (pool, address) = (pool.parse().unwrap(), address.parse().unwrap());
            of(&NetMap { pool, address, ..map(None) }).is_ok()
        };
        assert!(fits("10.42.0.0/16", "10.42.0.2/32"));
        assert!(fits("100.64.0.0/10", "100.100.0.1/32"));
        for (pool, address) in [
            ("0.0.0.0/0", "10.42.0.2/32"),
            ("8.8.8.0/24", "8.8.8.8/32"),
            ("10.0.0.0/7", "10.42.0.2/32"),
            ("10.42.0.0/16", "10.43.0.2/32"),
            ("10.42.0.0/16", "10.42.0.2/8"),
        ] {
            assert!(!fits(pool, address), "{pool} {address}");
        }
    }

    #[test]
    fn a_prefix_is_a_unique_local_one() {
        for (prefix, fits) in
            [("fd12:3456:789a::/48", true), ("::/0", false), ("2000::/3", false), ("2001:db8:1::/48", false)]
        {
            assert_eq!(
                of(&NetMap { prefix: prefix.parse().unwrap(), ..map(None) }).is_ok(),
                fits,
                "{prefix}"
            );
        }
    }
}
