//! The underlay addresses at which a peer can be tried: its endpoint candidates.

use std::net::{IpAddr, SocketAddr};

use lattice_wire::netmap::MAX_ENDPOINTS;

use crate::{
    Netns,
    link::{self, Address, Link, LinkError},
    uplink,
};

/// The endpoints to report for a device that listens on `port` in `underlay`: the unicast addresses of its links that
/// are up, IPv4 first, at most [`MAX_ENDPOINTS`]. Left out are loopback and link-local addresses, addresses not settled
/// yet, those of tunnels: an overlay's own address is no way to reach its underlay; and those of agents' uplinks.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn endpoints(underlay: &Netns, port: u16) -> Result<Vec<SocketAddr>, LinkError> {
    let (links, addresses) = link::links_and_addresses(underlay)?;
    Ok(candidates(&links, &addresses, port))
}

fn candidates(links: &[Link], addresses: &[Address], port: u16) -> Vec<SocketAddr> {
    let usable_link = |index| links.iter().any(|link| link.index == index && link.up && is_outward(link));
    let mut found: Vec<SocketAddr> = addresses
        .iter()
        .filter(|address| address.settled && is_routable(address.ip) && usable_link(address.link))
        .map(|address| SocketAddr::new(address.ip, port))
        .collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    let mut seen = Vec::with_capacity(MAX_ENDPOINTS);
    for endpoint in found {
        if seen.len() < MAX_ENDPOINTS && !seen.contains(&endpoint) {
            seen.push(endpoint);
        }
    }
    seen
}

fn is_outward(link: &Link) -> bool {
    !link.loopback && !link.tunnel && !link.name.starts_with(uplink::PREFIX)
}

fn is_routable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32) -> Link {
        let name = format!("eth{index}");
        let (mtu, mac) = (1500, vec![2, 0, 0, 0, 0, 1]);
        Link {
            index,
            name,
            up: true,
            ethernet: true,
            loopback: false,
            tunnel: false,
            mtu,
            mac,
            bridge: false,
            vrf: None,
        }
    }

    fn address(link: u32, ip: &str) -> Address {
        Address { link, ip: ip.parse().unwrap(), settled: true }
    }

    #[test]
    fn unicast_addresses_of_links_that_are_up_ipv4_first() {
        let links = [
            Link { loopback: true, ethernet: false, ..link(1) },
            link(2),
            Link { up: false, ..link(3) },
            Link { tunnel: true, ethernet: false, ..link(4) },
            Link { name: "lattice-0123abc".into(), ..link(5) },
        ];
        let addresses = [
            address(1, "127.0.0.1"),
            address(1, "192.0.2.99"),
            address(2, "2001:db8::2"),
            address(2, "fe80::2"),
            address(2, "169.254.1.1"),
            address(2, "192.0.2.2"),
            address(2, "192.0.2.2"),
            Address { settled: false, ..address(2, "2001:db8::3") },
            address(3, "192.0.2.3"),
            address(4, "10.42.0.4"),
            address(5, "198.19.0.4"),
            address(9, "192.0.2.9"),
        ];
        let expected = ["192.0.2.2:51820", "[2001:db8::2]:51820"].map(|text| text.parse().unwrap());
        assert_eq!(candidates(&links, &addresses, 51820), expected);
    }

    #[test]
    fn bounded() {
        let addresses: Vec<_> = (1..=100).map(|n| address(2, &format!("192.0.2.{n}"))).collect();
        assert_eq!(candidates(&[link(2)], &addresses, 1).len(), MAX_ENDPOINTS);
    }
}
