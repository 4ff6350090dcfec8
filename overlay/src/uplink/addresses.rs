//! Which addresses an uplink has.
//!
//! IPv4 comes from 198.19.0.0/16, the upper half of the benchmarking network (RFC 2544): never routed on the Internet and
//! in use on no ordinary LAN, unlike RFC 1918 and RFC 6598. The lower half is what proxies with "fake" addresses take, and
//! 192.0.0.0/24 (RFC 6890) is too small and has addresses of its own in it. IPv6 comes from a unique local prefix drawn at random
//! (RFC 4193). Each uplink takes one pair of two neighbours: a /31 (RFC 3021) and, by the same number, a /127 (RFC 6164).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::link::Route;

/// Where the IPv4 addresses of all uplinks are.
pub const NET_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 0, 0), 16);
/// Where the IPv6 addresses of all uplinks are.
pub const NET_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfdc0, 0x296a, 0x8e70, 0, 0, 0, 0, 0), 64);

const PAIRS: u32 = 1 << 15;
/// A route as wide as this is a default route in parts (`0.0.0.0/1`), not somebody's network.
const WIDE: u8 = 8;

/// The two ends of an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    number: u32,
}

impl Pair {
    /// The underlay's end.
    pub(super) fn outside(self) -> [IpNet; 2] {
        self.nets(0)
    }

    /// The agent's end.
    pub(super) fn inside(self) -> [IpNet; 2] {
        self.nets(1)
    }

    fn nets(self, end: u32) -> [IpNet; 2] {
        let at = self.number * 2 + end;
        let v4 = Ipv4Addr::from(u32::from(NET_V4.network()) + at);
        let v6 = Ipv6Addr::from(u128::from(NET_V6.network()) + u128::from(at));
        [Ipv4Net::new_assert(v4, 31).into(), Ipv6Net::new_assert(v6, 127).into()]
    }
}

/// The first pair from `start` on that meets no address, no route and not the overlay. None when all are taken.
pub(super) fn allocate(
    start: u32,
    addresses: &[IpAddr],
    routes: &[Route],
    overlay: &[IpNet],
) -> Option<Pair> {
    let narrow = routes.iter().map(|route| route.destination).filter(|net| net.prefix_len() > WIDE);
    let mut taken: Vec<IpNet> = addresses.iter().map(|ip| IpNet::from(*ip)).chain(narrow).collect();
    taken.extend(overlay);
    taken.retain(|net| overlap(net, &NET_V4.into()) || overlap(net, &NET_V6.into()));
    (0..PAIRS)
        .map(|step| Pair { number: start.wrapping_add(step) % PAIRS })
        .find(|pair| pair.outside().iter().all(|net| !taken.iter().any(|taken| overlap(taken, net))))
}

/// Whether two networks have an address in common.
pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Appends what of `net` is in none of `others`, in as few networks as possible, to `out`, until that holds more than `most`.
pub fn without<'a>(
    net: IpNet,
    others: impl IntoIterator<Item = &'a IpNet>,
    most: usize,
    out: &mut Vec<IpNet>,
) {
    let others: Vec<&IpNet> = others.into_iter().filter(|other| overlap(&net, other)).collect();
    if out.len() > most || others.iter().any(|other| other.contains(&net)) {
        return;
    }
    if others.is_empty() {
        return out.push(net);
    }
    // One of them is narrower, so it can be halved.
    for half in net.subnets(net.prefix_len() + 1).into_iter().flatten() {
        without(half, others.iter().copied(), most, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16));

    fn route(text: &str) -> Route {
        Route { destination: text.parse().unwrap(), links: vec![2], mtu: None }
    }

    fn texts(pair: Option<Pair>) -> [String; 4] {
        let pair = pair.unwrap();
        let [a, b] = pair.outside();
        let [c, d] = pair.inside();
        [a, b, c, d].map(|net| net.to_string())
    }

    #[test]
    fn a_pair_is_two_neighbours_in_each_network() {
        let expected = ["198.19.0.14/31", "fdc0:296a:8e70::e/127", "198.19.0.15/31", "fdc0:296a:8e70::f/127"];
        assert_eq!(texts(allocate(7, &[], &[], &[POOL])), expected);
        let last = allocate(PAIRS - 1, &[], &[], &[POOL]).unwrap();
        for net in last.outside().into_iter().chain(last.inside()) {
            assert!(overlap(&net, &NET_V4.into()) || overlap(&net, &NET_V6.into()), "{net}");
        }
    }

    #[test]
    fn what_is_taken_is_passed_over() {
        let after = |addresses: &[&str], routes: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            let routes: Vec<Route> = routes.iter().map(|text| route(text)).collect();
            allocate(PAIRS - 1, &addresses, &routes, &[POOL]).map(|pair| pair.number)
        };
        assert_eq!(after(&["198.19.255.253", "192.0.2.1"], &[]), Some(PAIRS - 1));
        assert_eq!(after(&["198.19.255.255"], &[]), Some(0), "either end");
        assert_eq!(after(&["fdc0:296a:8e70::fffe"], &[]), Some(0), "either version");
        assert_eq!(after(&["198.19.255.254"], &["198.19.0.0/24"]), Some(128));
        assert_eq!(after(&[], &["198.19.128.0/17", "0.0.0.0/0", "128.0.0.0/1", "::/0"]), Some(0));
        assert_eq!(after(&[], &["198.18.0.0/15"]), None);
    }

    #[test]
    fn what_is_left_of_a_network() {
        let left = |net: &str, others: &[&str], most| {
            let others: Vec<IpNet> = others.iter().map(|text| text.parse().unwrap()).collect();
            let mut out = Vec::new();
            without(net.parse().unwrap(), &others, most, &mut out);
            out.iter().map(IpNet::to_string).collect::<Vec<_>>()
        };
        assert_eq!(left("192.0.2.0/24", &["198.51.100.0/24", "::/0"], 9), ["192.0.2.0/24"]);
        assert_eq!(left("192.0.2.0/24", &["192.0.2.0/25", "192.0.2.192/26"], 9), ["192.0.2.128/26"]);
        for all in [&["192.0.0.0/16"][..], &["192.0.2.0/24"], &["192.0.2.0/25", "192.0.2.128/25"]] {
            assert!(left("192.0.2.0/24", all, 9).is_empty(), "{all:?}");
        }
        assert_eq!(left("::/0", &["2001:db8::7/128"], 200).len(), 128);
        assert_eq!(left("::/0", &["2001:db8::7/128"], 9).len(), 10);
    }

    #[test]
    fn the_overlay_is_passed_over() {
        let pool: IpNet = "198.19.0.0/17".parse().unwrap();
        assert_eq!(allocate(3, &[], &[], &[pool]).unwrap().number, 1 << 14);
        assert_eq!(allocate(3, &[], &[], &["198.18.0.0/15".parse().unwrap()]), None);
    }
}
