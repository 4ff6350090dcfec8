//! The overlay's address pool: which addresses of it may be leased.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;

/// Why a string is not a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid address pool {text:?}: {reason}")]
pub struct InvalidPool {
    text: String,
    reason: &'static str,
}

/// An IPv4 network from which peers get their addresses. Its first two addresses (network, and one kept for the control
/// plane) and its last (broadcast) are never leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool(Ipv4Net);

impl Pool {
    /// The whole network.
    pub fn net(self) -> Ipv4Net {
        self.0
    }

    /// Lowest address that may be leased.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.network().to_bits() + 2)
    }

    /// Highest address that may be leased.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.broadcast().to_bits() - 1)
    }
}

impl FromStr for Pool {
    type Err = InvalidPool;
    fn from_str(text: &str) -> Result<Self, InvalidPool> {
        let invalid = |reason| InvalidPool { text: text.chars().take(64).collect(), reason };
        let net: Ipv4Net =
            text.parse().map_err(|_| invalid("expected an IPv4 network such as 10.42.0.0/16"))?;
        if net.trunc() != net {
            return Err(invalid("its address has bits set beyond the prefix"));
        }
        if !(8..=30).contains(&net.prefix_len()) {
            return Err(invalid("its prefix must lie between /8 and /30"));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserves_both_ends() {
        let pool: Pool = "10.42.0.0/16".parse().unwrap();
        assert_eq!(pool.first(), Ipv4Addr::new(10, 42, 0, 2));
        assert_eq!(pool.last(), Ipv4Addr::new(10, 42, 255, 254));
        let smallest: Pool = "10.0.0.0/30".parse().unwrap();
        assert_eq!(smallest.first(), smallest.last());
    }

    #[test]
    fn refuses_what_has_no_room_or_no_sense() {
        for bad in ["", "10.42.0.0", "10.42.0.1/16", "10.0.0.0/31", "0.0.0.0/0", "fd00::/64"] {
            assert!(bad.parse::<Pool>().is_err(), "{bad}");
        }
    }
}
