//! The overlay's addresses: an IPv4 pool, and for each workspace an IPv6 prefix of its own.
//!
//! A peer leases one address, of IPv4. Its IPv6 address is the workspace's prefix that ends in the leased one: `10.42.0.5` in
//! `fd12:3456:789a::/48` is also `fd12:3456:789a::a2a:5`. So whoever knows the prefix knows every peer's second address; no lease, map or
//! rule can say otherwise, and two peers share one no more than they share the other.
//!
//! **IPv6 follows IPv4**: a rule for IPv4 addresses of the pool holds for the IPv6 addresses of the same peers. Else a policy that denies a
//! peer by its address would be got around by asking for its other one. It does not hold the other way: `::/0` says nothing of IPv4.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::grammar::Scope;

/// Length of a workspace's prefix (RFC 4193, 3.1: eight bits that are the same for all, forty random ones).
pub const PREFIX_LEN: u8 = 48;

/// Bits of an overlay address before those of IPv4.
const BEFORE_V4: u8 = 96;

/// Unique local addresses that are assigned locally (RFC 4193, 3.2).
pub const ULA: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8);

/// A network that is no prefix of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no prefix of a workspace: expected a /{PREFIX_LEN} in {ULA} (RFC 4193)")]
pub struct NoPrefix(Ipv6Net);

/// Where all addresses of one workspace's peers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlay {
    pool: Ipv4Net,
    prefix: Ipv6Net,
}

impl Overlay {
    /// Of a workspace with `prefix`, whose peers lease addresses of `pool`.
    ///
    /// # Errors
    /// When `prefix` is none.
    pub fn new(pool: Ipv4Net, prefix: Ipv6Net) -> Result<Self, NoPrefix> {
        let is_prefix =
            prefix.prefix_len() == PREFIX_LEN && prefix.trunc() == prefix && ULA.contains(&prefix);
        if is_prefix { Ok(Self { pool: pool.trunc(), prefix }) } else { Err(NoPrefix(prefix)) }
    }

    /// The prefix that `random` makes: 40 bits, the least probable to meet another one (RFC 4193, 3.2.1).
    pub fn prefix_of(random: [u8; 5]) -> Ipv6Net {
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&random);
        Ipv6Net::new_assert(octets.into(), PREFIX_LEN)
    }

    /// The IPv4 addresses, also those of other workspaces.
    pub fn pool(&self) -> Ipv4Net {
        self.pool
    }

    /// The workspace's IPv6 addresses.
    pub fn prefix(&self) -> Ipv6Net {
        self.prefix
    }

    /// Both.
    pub fn nets(&self) -> [IpNet; 2] {
        [self.pool.into(), self.prefix.into()]
    }

    /// Whether all of `net` lies in the overlay.
    pub fn contains(&self, net: &IpNet) -> bool {
        self.nets().iter().any(|own| own.contains(net))
    }

    /// The IPv6 address of the peer that has leased `address`.
    pub fn v6(&self, address: Ipv4Addr) -> Ipv6Addr {
        in_prefix(self.prefix, address)
    }

    /// The IPv6 addresses of the peers whose IPv4 addresses lie in `net`; `None` when it holds no address of the pool.
    pub fn twin(&self, net: &Ipv4Net) -> Option<Ipv6Net> {
        let both = match () {
            () if self.pool.contains(net) => net.trunc(),
            () if net.contains(&self.pool) => self.pool,
            () => return None,
        };
        Some(Ipv6Net::new_assert(self.v6(both.network()), BEFORE_V4 + both.prefix_len()))
    }

    /// The IPv4 addresses of the peers whose IPv6 addresses lie in `net`, where [`Self::twin`] leads back to it.
    pub fn v4(&self, net: &Ipv6Net) -> Option<Ipv4Net> {
        let len = net.prefix_len().checked_sub(BEFORE_V4)?;
        let v4 = Ipv4Net::new(Ipv4Addr::from_bits(net.network().to_bits() as u32), len).ok()?;
        (self.pool.contains(&v4) && self.twin(&v4)? == net.trunc()).then_some(v4)
    }

    /// `scopes`, each followed by that of the same peers' IPv6 addresses. A name's are as they were: none opens a peer's address.
    pub(crate) fn with_twins(&self, scopes: Vec<Scope>) -> Vec<Scope> {
        let twin = |scope: &Scope| match scope.net {
            IpNet::V4(net) if scope.name.is_none() => self.twin(&net),
            _ => None,
        };
        let both = |scope: Scope| {
            let twin = twin(&scope).map(|net| Scope { name: None, net: net.into() });
            [Some(scope), twin]
        };
        scopes.into_iter().flat_map(both).flatten().collect()
    }
}

/// [`Overlay::v6`] for who has no more than the prefix.
pub fn in_prefix(prefix: Ipv6Net, address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.network().to_bits() | u128::from(address.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay() -> Overlay {
        Overlay::new("10.42.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_prefix_is_a_whole_48_of_the_locally_assigned_ones() {
        let pool = "10.42.0.0/16".parse().unwrap();
        for bad in [
            "fd12:3456:789a::/64",
            "fd00::/8",
            "fc00::/48",
            "2001:db8::/48",
            "::/48",
            "fd12:3456:789a:1::/48",
        ] {
            assert!(Overlay::new(pool, bad.parse().unwrap()).is_err(), "{bad}");
        }
        let made = Overlay::prefix_of([0x12, 0x34, 0x56, 0x78, 0x9a]);
        assert_eq!(Overlay::new(pool, made), Ok(overlay()));
    }

    #[test]
    fn a_peer_has_the_address_that_ends_in_its_lease() {
        assert_eq!(overlay().v6([10, 42, 0, 5].into()).to_string(), "fd12:3456:789a::a2a:5");
    }

    #[test]
    fn the_same_peers_are_meant_by_ipv6() {
        for (net, twin) in [
            ("10.42.0.5/32", Some("fd12:3456:789a::a2a:5/128")),
            ("10.42.0.4/30", Some("fd12:3456:789a::a2a:4/126")),
            ("10.42.0.0/16", Some("fd12:3456:789a::a2a:0/112")),
            ("10.0.0.0/8", Some("fd12:3456:789a::a2a:0/112")),
            ("0.0.0.0/0", Some("fd12:3456:789a::a2a:0/112")),
            ("10.43.0.0/16", None),
            ("192.0.2.1/32", None),
        ] {
            let expected = twin.map(|twin| twin.parse().unwrap());
            assert_eq!(overlay().twin(&net.parse().unwrap()), expected, "{net}");
            if let Some(twin) = expected {
                let back = overlay().v4(&twin).unwrap();
                assert_eq!(overlay().twin(&back), Some(twin), "{net}");
            }
        }
        for other in [
            "::/0",
            "fd12:3456:789a::/48",
            "fd12:3456:789a::/96",
            "fd12:3456:789a::a2b:1/128",
            "fd12:3456:789b::a2a:5/128",
        ] {
            assert_eq!(overlay().v4(&other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn holds_the_pool_and_the_prefix_alone() {
        for (net, inside) in [
            ("10.42.7.0/24", true),
            ("fd12:3456:789a:7::/64", true),
            ("10.0.0.0/8", false),
            ("fd12:3456:789b::1/128", false),
        ] {
            assert_eq!(overlay().contains(&net.parse().unwrap()), inside, "{net}");
        }
    }
}
