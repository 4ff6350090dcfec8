//! Where nothing of a device may ever be sent, whatever a peer says of itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The pool of the overlay.
const OVERLAY: [u8; 2] = [10, 42];

/// Addresses that no peer can have, which a lying one may name all the same.
pub const LIES: [&str; 12] = [
    "127.0.0.1:22",
    "0.0.0.0:51820",
    "255.255.255.255:51820",
    "224.0.0.1:5353",
    "169.254.169.254:80",
    "169.254.1.1:51820",
    "192.0.2.77:0",
    "10.42.0.1:51820",
    "[::1]:51820",
    "[ff02::1]:51820",
    "[fe80::1]:51820",
    "[::ffff:127.0.0.1]:51820",
];

/// Why a device may not send there; `None` when it may.
pub(crate) fn why(remote: SocketAddr) -> Option<&'static str> {
    let v4 = |address: Ipv4Addr| match () {
        () if address.octets()[0] == 0 => Some("unspecified"),
        () if address.is_loopback() => Some("loopback"),
        () if address.is_link_local() => Some("link-local"),
        () if address.octets()[0] >= 224 => Some("multicast or broadcast"),
        () if address.octets()[..2] == OVERLAY => Some("inside the overlay"),
        () => None,
    };
    if remote.port() == 0 {
        return Some("port zero");
    }
    match remote.ip() {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) if address.is_loopback() || address.is_unspecified() => Some("loopback"),
        IpAddr::V6(address) if address.is_multicast() => Some("multicast"),
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(address) => address.to_ipv4_mapped().and_then(v4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lie_is_forbidden_and_honest_addresses_are_not() {
        for lie in LIES {
            assert!(why(lie.parse().unwrap()).is_some(), "{lie}");
        }
        for honest in ["192.168.1.2:51820", "198.51.100.1:1024", "[2001:db8::1]:51820", "[fd00::1]:1"] {
            assert_eq!(why(honest.parse().unwrap()), None);
        }
    }
}
