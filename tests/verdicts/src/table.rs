//! Tables in few words.

use std::net::IpAddr;

use lattice_policy::{Action, Entry, Match, Pin, PortRange, Proto, RuleId, Table};

/// A line of an entry or of a pin.
pub fn line(proto: Proto, ports: Option<(u16, u16)>, action: Action, rule: u32) -> Match {
    Match { proto, ports: ports.map(|(lo, hi)| PortRange { lo, hi }), action, rule: RuleId(rule) }
}

/// The lines of a network.
pub fn entry(net: &str, matches: &[Match]) -> Entry {
    Entry { net: net.parse().unwrap(), matches: matches.to_vec() }
}

/// What a name's address opens, until the moment `until_ns`.
pub fn pin(address: impl Into<IpAddr>, matches: &[Match], until_ns: u64) -> Pin {
    Pin { address: address.into(), matches: matches.to_vec(), until_ns }
}

/// The tool on TCP 8080, UDP 53 and ping, except one address; many ports of another; a peer that may call port 9000.
pub fn table() -> Table {
    let open = [
        line(Proto::Tcp, Some((8080, 8080)), Action::Allow, 1),
        line(Proto::Udp, Some((53, 53)), Action::Allow, 2),
        line(Proto::Icmp, None, Action::Allow, 3),
    ];
    let many: Vec<_> =
        (0..10).map(|n| line(Proto::Tcp, Some((n * 1000, n * 1000 + 9)), Action::Allow, 20)).collect();
    Table {
        egress: vec![
            entry("192.0.2.0/24", &open),
            entry("192.0.2.66/32", &[line(Proto::Any, None, Action::Deny, 4)]),
            entry("203.0.113.0/24", &many),
            entry("2001:db8::/32", &open),
            entry("::/0", &[line(Proto::Tcp, Some((443, 443)), Action::Allow, 5)]),
        ],
        ingress: vec![entry("192.0.2.7/32", &[line(Proto::Tcp, Some((9000, 9000)), Action::Allow, 9)])],
    }
}
