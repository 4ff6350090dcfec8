//! Which addresses may be probed because a peer says that it is there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use lattice_policy::builtin;

/// Whether small packets may be sent to `address` on a peer's word. Not to metadata services, link-local, multicast and broadcast
/// addresses, nor to what no peer is at: loopback, unspecified, reserved. Nor into `pool`, the overlay itself: that would be WireGuard in
/// WireGuard. Private addresses are fine, they are how peers of one LAN meet.
pub fn may_be_probed(address: SocketAddr, pool: &[IpNet]) -> bool {
    let ip = address.ip();
    let embedded = embedded_v4(ip);
    address.port() != 0
        && !pool.iter().any(|net| net.contains(&ip) || embedded.is_some_and(|v4| net.contains(&v4)))
        && is_unicast(ip)
        && embedded.is_none_or(is_unicast)
}

/// One form for each address: that of IPv4, for IPv4 addresses in the clothes of IPv6 (RFC 4291 section 2.5.5.2); without flow label
/// and scope.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn is_unicast(ip: IpAddr) -> bool {
    let no_host = match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        // ::/96 holds the unspecified address, loopback and the deprecated IPv4-compatible ones.
        IpAddr::V6(v6) => v6.segments()[..6] == [0; 6] || v6.to_ipv4_mapped().is_some(),
    };
    !no_host && !ip.is_loopback() && !builtin::rules().iter().any(|rule| rule.net.contains(&ip))
}

/// The IPv4 address that a NAT64 (RFC 6052) or 6to4 (RFC 3056) gateway would send to.
fn embedded_v4(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = ip else { return None };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lying_candidate_is_not_probed() {
        let pool = ["10.42.0.0/16".parse().unwrap(), "fd00:42::/32".parse().unwrap()];
        let may = |text: &str| may_be_probed(canonical(text.parse().unwrap()), &pool);
        for lie in [
            "127.0.0.1:53",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "224.0.0.1:5353",
            "255.255.255.255:9",
            "240.0.0.1:9",
            "169.254.169.254:80",
            "169.254.3.4:80",
            "100.100.100.200:80",
            "168.63.129.16:80",
            "10.42.7.7:51820",
            "192.0.2.1:0",
            "[::1]:53",
            "[::]:53",
            "[::7f00:1]:53",
            "[::ffff:127.0.0.1]:53",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:51820",
            "[ff02::1]:51820",
            "[fd00:ec2::254]:80",
            "[fd00:42::1]:51820",
            "[64:ff9b::7f00:1]:53",
            "[64:ff9b::a9fe:a9fe]:80",
            "[64:ff9b::a2a:1]:80",
            "[2002:7f00:1::1]:53",
        ] {
            assert!(!may(lie), "{lie}");
        }
        for fine in
            ["192.168.1.2:51820", "10.1.2.3:1", "100.64.0.9:7", "192.0.2.1:51820", "[2001:db8::1]:51820"]
        {
            assert!(may(fine), "{fine}");
        }
    }
}
