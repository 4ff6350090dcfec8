//! Tables in few words.

use lattice_policy::{Action, Entry, Match, PortRange, Proto, RuleId, Table};

/// The peer's TCP 8080 by rule 1, and its UDP 53 by rule 2.
pub fn table() -> Table {
    let open = [line(Proto::Tcp, Some(8080), 1), line(Proto::Udp, Some(53), 2)];
    Table { egress: vec![entry("10.42.0.1/32", &open), entry("fd00::1/128", &open)], ingress: Vec::new() }
}

/// Allows a port, or all of them.
pub fn line(proto: Proto, port: Option<u16>, rule: u32) -> Match {
    let ports = port.map(|p| PortRange { lo: p, hi: p });
    Match { proto, ports, action: Action::Allow, rule: RuleId(rule) }
}

/// The lines of a network.
pub fn entry(net: &str, matches: &[Match]) -> Entry {
    Entry { net: net.parse().unwrap(), matches: matches.to_vec() }
}
