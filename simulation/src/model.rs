//! What a pair of nodes can hope for, from what RFC 4787 says of the NATs between them: the reference that a run is held to.

use std::{cmp::max, net::IpAddr};

use crate::{Dependence, HostId, INTERNET, Network, Router, ZoneId};

/// Whether two hosts can reach each other without a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direct {
    /// No way of punching holes can work.
    Impossible,
    /// It depends on luck, or on what no candidate tells.
    Unknown,
    /// Both sending to what the other is seen at opens a way.
    Certain,
}

/// What is between a host and a zone further out.
struct Outlook {
    mapping: Dependence,
    filtering: Dependence,
    open: bool,
    udp: bool,
}

/// Whether two hosts can reach each other without a relay, with a STUN server on the internet.
pub fn direct(network: &Network, one: HostId, other: HostId) -> Direct {
    if network.is_cut(one, other) {
        return Direct::Impossible;
    }
    let addresses = network.addresses(one).iter();
    let pairs = addresses.flat_map(|a| network.addresses(other).iter().map(move |b| (*a, *b)));
    let alike = pairs.filter(|((_, a), (_, b))| a.is_ipv4() == b.is_ipv4());
    alike.map(|(a, b)| by_addresses(network, a, b)).max().unwrap_or(Direct::Impossible)
}

fn by_addresses(network: &Network, one: (ZoneId, IpAddr), other: (ZoneId, IpAddr)) -> Direct {
    let Some(common) = common_zone(network, one.0, other.0) else { return Direct::Impossible };
    let is_v4 = one.1.is_ipv4();
    let (a, b) = (outlook(network, one.0, common, is_v4), outlook(network, other.0, common, is_v4));
    if !a.udp || !b.udp {
        return Direct::Impossible;
    }
    if a.open || b.open {
        // The open one's own address is a candidate, and the other one's appears with its first datagram.
        return Direct::Certain;
    }
    if is_v4 && common != INTERNET {
        // It takes a hairpin at the outermost NAT, or an address that nobody names.
        return Direct::Unknown;
    }
    punch(&a, &b)
}

/// Both behind NATs or firewalls, each sends to where the STUN server sees the other.
fn punch(a: &Outlook, b: &Outlook) -> Direct {
    use Dependence::{AddressAndPortDependent, EndpointIndependent};
    let lets_in_other_ports = |outlook: &Outlook| outlook.filtering < AddressAndPortDependent;
    match (a.mapping, b.mapping) {
        (EndpointIndependent, EndpointIndependent) => Direct::Certain,
        // What comes from the symmetric one has a port that the other has never sent to.
        (EndpointIndependent, _) if lets_in_other_ports(a) => Direct::Certain,
        (_, EndpointIndependent) if lets_in_other_ports(b) => Direct::Certain,
        _ if lets_in_other_ports(a) || lets_in_other_ports(b) => Direct::Unknown,
        _ => Direct::Impossible,
    }
}

fn common_zone(network: &Network, one: ZoneId, other: ZoneId) -> Option<ZoneId> {
    let zones = |zone| {
        let outer: Vec<ZoneId> = network.way(zone).0.iter().map(|router| router.outer).collect();
        std::iter::once(zone).chain(outer)
    };
    let others: Vec<ZoneId> = zones(other).collect();
    zones(one).find(|zone| others.contains(zone))
}

fn outlook(network: &Network, zone: ZoneId, until: ZoneId, is_v4: bool) -> Outlook {
    let (way, _) = network.way(zone);
    let passed = way.iter().position(|router| router.inner == until).unwrap_or(way.len());
    let start = Dependence::EndpointIndependent;
    let outlook = Outlook { mapping: start, filtering: start, open: true, udp: true };
    way[..passed].iter().fold(outlook, |outlook, router| {
        let Router { nat, firewall, link, .. } = router;
        let guard = nat.as_ref().filter(|_| is_v4).or(firewall.as_ref()).map(|guard| guard.behaviour);
        Outlook {
            mapping: guard.map_or(outlook.mapping, |guard| max(outlook.mapping, guard.mapping)),
            filtering: guard.map_or(outlook.filtering, |guard| max(outlook.filtering, guard.filtering)),
            open: outlook.open && guard.is_none(),
            udp: outlook.udp && link.up && link.udp,
        }
    })
}

#[cfg(test)]
mod tests;
