//! Addresses that no name opens: all that is not a public unicast address (IANA's special-purpose registries, RFC 6890), and what
//! the built-in rules guard.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use ipnet::IpNet;

use crate::builtin;

const NETS: [(&str, &str); 31] = [
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", PRIVATE),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", PRIVATE),
    ("192.0.0.0/24", RESERVED),
    ("192.0.2.0/24", DOCUMENTATION),
    ("192.88.99.0/24", RESERVED),
    ("192.168.0.0/16", PRIVATE),
    ("198.18.0.0/15", BENCHMARKING),
    ("198.51.100.0/24", DOCUMENTATION),
    ("203.0.113.0/24", DOCUMENTATION),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", RESERVED),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::/96", "IPv4-compatible"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("100::/64", RESERVED),
    ("2001:2::/48", BENCHMARKING),
    ("2001:10::/28", RESERVED),
    ("2001:db8::/32", DOCUMENTATION),
    ("3fff::/20", DOCUMENTATION),
    ("5f00::/16", RESERVED),
    ("fc00::/7", PRIVATE),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
];

const PRIVATE: &str = "private";
const RESERVED: &str = "reserved";
const DOCUMENTATION: &str = "documentation";
const BENCHMARKING: &str = "benchmarking";

static CLOSED: LazyLock<Vec<(IpNet, &str)>> =
    LazyLock::new(|| NETS.iter().filter_map(|(net, kind)| Some((net.parse().ok()?, *kind))).collect());

/// Which kind of address that no name opens this is.
pub(super) fn kind(address: IpAddr) -> Option<&'static str> {
    if builtin::is_guarded(&address.into()) {
        return Some("guarded (metadata, link-local or multicast)");
    }
    if let Some((_, kind)) = CLOSED.iter().find(|(net, _)| net.contains(&address)) {
        return Some(kind);
    }
    let IpAddr::V6(address) = address else { return None };
    let inner = embedded(address);
    // Of IPv6, only 2000::/3 is given out (RFC 4291, 2.4).
    if inner == [None; 2] && address.segments()[0] >> 13 != 1 {
        return Some(RESERVED);
    }
    inner.into_iter().flatten().find_map(|inner| kind(inner.into()))
}

/// Whether every address of `net` is closed to names.
pub(crate) fn is_closed_net(net: &IpNet) -> bool {
    builtin::is_guarded(net) || CLOSED.iter().any(|(closed, _)| closed.contains(net))
}

/// The IPv4 addresses to which a gateway may forward what is sent to `address`: NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo's
/// server and client (RFC 4380).
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match (a, b) {
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => [v4(g, h), None],
        (0x2002, _) => [v4(b, c), None],
        (0x2001, 0) => [v4(c, d), v4(!g, !h)],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_is_read() {
        assert_eq!(CLOSED.len(), NETS.len());
        assert!(CLOSED.iter().all(|(net, _)| *net == net.trunc()));
        for rule in builtin::rules() {
            assert!(kind(rule.net.addr()).is_some() && is_closed_net(&rule.net), "{}", rule.text);
        }
    }

    #[test]
    fn only_public_addresses_are_open() {
        for (address, expected) in [
            ("93.184.216.34", None),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("172.32.0.0", None),
            ("2606:4700::1111", None),
            ("2a00::1", None),
            ("64:ff9b::8.8.8.8", None),
            ("2002:808:808::1", None),
            ("2001:0:808:808::f7f7:f7f7", None),
            ("0.0.0.0", Some("unspecified")),
            ("10.0.0.1", Some("private")),
            ("172.31.255.255", Some("private")),
            ("192.168.1.1", Some("private")),
            ("fd00::1", Some("private")),
            ("100.64.0.1", Some("carrier-grade NAT")),
            ("127.0.0.1", Some("loopback")),
            ("127.255.255.254", Some("loopback")),
            ("::1", Some("loopback")),
            ("::", Some("unspecified")),
            ("198.19.255.255", Some("benchmarking")),
            ("2001:2::1", Some("benchmarking")),
            ("192.0.2.1", Some("documentation")),
            ("2001:db8::1", Some("documentation")),
            ("3fff::1", Some("documentation")),
            ("240.0.0.1", Some("reserved")),
            ("4000::1", Some("reserved")),
            ("200::1", Some("reserved")),
            ("::2:0:0:1", Some("reserved")),
            ("64:ff9b::1:808:808", Some("reserved")),
            ("::ffff:8.8.8.8", Some("IPv4-mapped")),
            ("::ffff:0:8.8.8.8", Some("IPv4-translated")),
            ("::8.8.8.8", Some("IPv4-compatible")),
            ("64:ff9b:1::8.8.8.8", Some("local NAT64")),
            ("64:ff9b::10.0.0.1", Some("private")),
            ("64:ff9b::127.0.0.1", Some("loopback")),
            ("2002:a00:1::1", Some("private")),
            ("2002:c0a8:101::", Some("private")),
            ("2001:0:a00:1::f7f7:f7f7", Some("private")),
            ("2001:0:808:808::f5ff:fffe", Some("private")),
        ] {
            assert_eq!(kind(address.parse().unwrap()), expected, "{address}");
        }
        for guarded in [
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "ff02::1",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fd00:ec2::254",
        ] {
            assert!(kind(guarded.parse().unwrap()).unwrap().starts_with("guarded"), "{guarded}");
        }
    }
}
