//! By which links of the underlay a destination is reached.

use ipnet::{IpNet, Ipv6Net};

use super::{PREFIX, addresses::overlap};
use crate::link::{Link, Route};

/// The least MTU of IPv6 (RFC 8200, 5).
const MIN_MTU: u32 = 1280;

/// The links that lead to what an uplink is for, for one IP version. Replies come in by them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ways {
    /// Their names, sorted.
    pub(super) links: Vec<String>,
    /// The routes that were found.
    pub(super) to: Vec<IpNet>,
    /// Bytes of a packet on the widest of the routes; path MTU discovery finds out about the others.
    pub(super) mtu: Option<u16>,
}

/// The ways to those of `targets` that are of the IP version of `every`, which is `0.0.0.0/0` or `::/0`.
pub(super) fn ways(
    every: &IpNet,
    targets: &[IpNet],
    overlay: &[IpNet],
    routes: &[Route],
    links: &[Link],
) -> Ways {
    let mut used: Vec<&Route> = routes
        .iter()
        .filter(|route| every.contains(&route.destination) && is_way_out(route, overlay))
        .filter(|route| targets.iter().any(|target| overlap(target, &route.destination)))
        .collect();
    let find = |index: &u32| links.iter().find(|link| link.index == *index && usable(link));
    used.retain(|route| route.links.iter().any(|index| find(index).is_some()));
    used.sort_by_key(|route| route.destination.prefix_len());
    let mtu = used.iter().find_map(|route| {
        let link = route.links.iter().find_map(find)?;
        route.mtu.or(Some(link.mtu)).filter(|mtu| *mtu > 0)
    });
    let mut names: Vec<String> =
        used.iter().flat_map(|route| &route.links).filter_map(find).map(|link| link.name.clone()).collect();
    names.sort();
    names.dedup();
    let mtu = mtu.map(|mtu| u16::try_from(mtu.max(MIN_MTU)).unwrap_or(u16::MAX));
    Ways { links: names, to: used.iter().map(|route| route.destination).collect(), mtu }
}

impl Ways {
    /// Whether something of `target` is reached.
    pub(super) fn lead_to(&self, target: &IpNet) -> bool {
        self.to.iter().any(|route| overlap(route, target))
    }
}

fn usable(link: &Link) -> bool {
    !link.loopback && !link.name.starts_with(PREFIX)
}

/// Not the way into the overlay that the host itself may have, nor what every link has for itself.
fn is_way_out(route: &Route, overlay: &[IpNet]) -> bool {
    let own = [IpNet::V6(LINK_LOCAL), IpNet::V6(MULTICAST)];
    !own.iter().chain(overlay).any(|net| net.contains(&route.destination))
}

const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
const MULTICAST: Ipv6Net = Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, mtu: u32) -> Link {
        let name = name.to_owned();
        let loopback = name == "lo";
        Link {
            index,
            name,
            up: true,
            ethernet: true,
            loopback,
            tunnel: false,
            mtu,
            mac: Vec::new(),
            bridge: false,
            vrf: None,
        }
    }

    fn route(destination: &str, link: u32) -> Route {
        Route { destination: destination.parse().unwrap(), links: vec![link], mtu: None }
    }

    fn host(targets: &[&str], every: &str) -> Ways {
        let links = [
            link(1, "lo", 65536),
            link(2, "eth0", 1500),
            link(3, "vpn0", 1000),
            link(4, "lattice-1234567", 1500),
            link(5, "wg0", 1420),
        ];
        let routes = [
            route("172.16.0.0/12", 3),
            route("0.0.0.0/0", 2),
            route("127.0.0.0/8", 1),
            route("198.19.0.0/31", 4),
            route("10.42.0.0/16", 5),
            route("::/0", 2),
            route("fe80::/64", 3),
            route("ff00::/8", 3),
            Route { mtu: Some(9000), ..route("2001:db8::/32", 3) },
        ];
        let targets: Vec<IpNet> = targets.iter().map(|text| text.parse().unwrap()).collect();
        ways(&every.parse().unwrap(), &targets, &["10.42.0.0/16".parse().unwrap()], &routes, &links)
    }

    fn found(links: &[&str], to: &[&str], mtu: Option<u16>) -> Ways {
        let to = to.iter().map(|text| text.parse().unwrap()).collect();
        Ways { links: links.iter().map(|name| (*name).to_owned()).collect(), to, mtu }
    }

    #[test]
    fn only_the_links_that_lead_to_a_target() {
        let all = "0.0.0.0/0";
        let both = ["0.0.0.0/0", "172.16.0.0/12"];
        assert_eq!(host(&["203.0.113.7/32"], all), found(&["eth0"], &both[..1], Some(1500)));
        assert_eq!(host(&["172.16.3.0/24"], all), found(&["eth0", "vpn0"], &both, Some(1500)));
        assert_eq!(host(&["0.0.0.0/0"], all), found(&["eth0", "vpn0"], &both, Some(1500)));
        assert_eq!(host(&["2001:db8::/32"], all), Ways::default());
    }

    #[test]
    fn ipv6_by_itself() {
        let both = ["::/0", "2001:db8::/32"];
        assert_eq!(host(&["::/0"], "::/0"), found(&["eth0", "vpn0"], &both, Some(1500)));
        let ways = host(&["2a00::/16", "0.0.0.0/0"], "::/0");
        assert_eq!(ways, found(&["eth0"], &both[..1], Some(1500)));
        assert!(ways.lead_to(&"2a00::1/128".parse().unwrap()));
        assert!(!ways.lead_to(&"192.0.2.1/32".parse().unwrap()));
    }

    #[test]
    fn the_mtu_of_the_route_goes_before_that_of_its_link_and_never_below_1280() {
        let links = [link(3, "vpn0", 1000)];
        let targets = ["2001:db8::/32".parse().unwrap()];
        let of = |mtu| {
            let routes = [Route { mtu, ..route("2001:db8::/32", 3) }];
            let pool: IpNet = "10.42.0.0/16".parse().unwrap();
            ways(&"::/0".parse().unwrap(), &targets, &[pool], &routes, &links).mtu
        };
        assert_eq!((of(Some(9000)), of(None), of(Some(100_000))), (Some(9000), Some(1280), Some(u16::MAX)));
    }
}
