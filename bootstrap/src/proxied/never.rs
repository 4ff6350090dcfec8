//! What an agent never reaches by a socket of this host, whatever a rule says: the host itself, and what is not one remote host.
//!
//! A rule such as `0.0.0.0/0` is meant for the world outside. Taken literally it would open every service that listens on the host's loopback
//! for those alone who have a shell on it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use libc::{EADDRNOTAVAIL, EAFNOSUPPORT, EHOSTUNREACH, ENETUNREACH};
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use crate::source::source_to;

/// Link-local addresses that are left to the policy, whose built-in rules let an exact rule alone open them: cloud metadata.
const METADATA: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(169, 254, 170, 2)];

/// Why `address` is none that is dialled, if it is not.
pub(crate) fn why_never(address: IpAddr) -> Option<&'static str> {
    let all = [Some(address), inner(address).map(IpAddr::V4)];
    all.into_iter().flatten().find_map(|address| by_kind(address).or_else(|| of_this_host(address)))
}

fn by_kind(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(v4) => match v4.octets() {
            [0, ..] => Some("an unspecified address"),
            [127, ..] => Some(LOOPBACK),
            [169, 254, ..] if !METADATA.contains(&v4) => Some(LINK_LOCAL),
            [224..=239, ..] => Some(MULTICAST),
            [255, 255, 255, 255] => Some(BROADCAST),
            _ => None,
        },
        IpAddr::V6(v6) => match v6 {
            Ipv6Addr::UNSPECIFIED => Some("an unspecified address"),
            Ipv6Addr::LOCALHOST => Some(LOOPBACK),
            v6 if v6.is_unicast_link_local() => Some(LINK_LOCAL),
            v6 if v6.is_multicast() => Some(MULTICAST),
            _ => None,
        },
    }
}

const LOOPBACK: &str = "a loopback address";
const LINK_LOCAL: &str = "a link-local address";
const MULTICAST: &str = "a multicast address";
const BROADCAST: &str = "a broadcast address";
const HOST: &str = "an address of this host";

/// The IPv4 address that `address` stands for on this host or behind a gateway: IPv4-compatible (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
fn inner(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0, g, h] | [0x64, 0xff9b, 0, 0, 0, 0, g, h] => v4(g, h),
        [0x2002, b, c, ..] => v4(b, c),
        _ => None,
    }
}

/// Asks the kernel, at the moment: what it would send there has its own destination as source, or loopback, where it stays on this host. To a
/// second address of a link's network it has the first as source, so the links' addresses are looked at as well. A broadcast address of a link is
/// refused by the kernel itself.
fn of_this_host(address: IpAddr) -> Option<&'static str> {
    match source_to(address) {
        Ok(source) if is_own(source, address) => Some(HOST),
        // What cannot be told is not dialled.
        Ok(_) => on_a_link(address).unwrap_or(true).then_some(HOST),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(BROADCAST),
        // Without a route it is nobody's, which the one who dials is told.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(ENETUNREACH | EHOSTUNREACH | EADDRNOTAVAIL | EAFNOSUPPORT)
            ) =>
        {
            None
        }
        // Such as without a descriptor for the question.
        Err(_) => Some(HOST),
    }
}

/// Whether a link has the address. The list of all links, long on a host of many containers, is read only where a socket can have the address:
/// where it cannot, no link does. With `ip_nonlocal_bind` it can have any.
fn on_a_link(address: IpAddr) -> io::Result<bool> {
    let address = address.to_canonical();
    match UdpSocket::bind((address, 0)) {
        Err(error) if error.raw_os_error() == Some(EADDRNOTAVAIL) => return Ok(false),
        bound => drop(bound?),
    }
    Ok(getifaddrs()?.filter_map(|link| ip(link.address?)).any(|own| own == address))
}

fn ip(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// Whether what has gone from `source` to `destination` has stayed on this host.
pub(crate) fn is_own(source: IpAddr, destination: IpAddr) -> bool {
    source.to_canonical() == destination.to_canonical() || source.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use lattice_overlay::{Netns, link};

    use super::*;

    fn why(address: &str) -> Option<&'static str> {
        why_never(address.parse().unwrap())
    }

    #[test]
    fn what_is_not_one_remote_host_is_never_dialled() {
        for (address, expected) in [
            ("0.0.0.0", "an unspecified address"),
            ("0.1.2.3", "an unspecified address"),
            ("::", "an unspecified address"),
            ("127.0.0.1", LOOPBACK),
            ("127.255.255.254", LOOPBACK),
            ("::1", LOOPBACK),
            ("::ffff:127.0.0.1", LOOPBACK),
            ("::127.0.0.1", LOOPBACK),
            ("64:ff9b::127.0.0.1", LOOPBACK),
            ("2002:7f00:1::1", LOOPBACK),
            ("::ffff:0.0.0.0", "an unspecified address"),
            ("169.254.1.1", LINK_LOCAL),
            ("::ffff:169.254.1.1", LINK_LOCAL),
            ("fe80::1", LINK_LOCAL),
            ("224.0.0.1", MULTICAST),
            ("::ffff:239.255.255.250", MULTICAST),
            ("ff02::1", MULTICAST),
            ("255.255.255.255", BROADCAST),
        ] {
            assert_eq!(why(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn the_rest_is_left_to_the_policy() {
        let empty = Netns::create().unwrap();
        let none =
            ["192.0.2.1", "10.1.2.3", "169.254.169.254", "169.254.170.2", "2001:db8::1", "fd00:ec2::254"];
        empty.run(|| none.map(|address| assert_eq!(why(address), None, "{address}"))).unwrap();
    }

    /// Needs root.
    #[test]
    fn an_address_of_the_host_is_known_as_soon_as_it_has_it() {
        let (host, other) = (Netns::create().unwrap(), Netns::create().unwrap());
        link::add_veth(&host, "eth0", &other, "far0").unwrap();
        let of_host = ["192.0.2.5", "::ffff:192.0.2.5", "64:ff9b::192.0.2.5", "2001:db8::5"];
        let ask = || host.run(|| of_host.map(why)).unwrap();
        assert_eq!(ask(), [None; 4]);
        link::set_up(&host, "lo").unwrap();
        for (netns, name) in [(&host, "eth0"), (&other, "far0")] {
            link::set_up(netns, name).unwrap();
        }
        link::add_address(&host, "eth0", "192.0.2.5/24".parse().unwrap()).unwrap();
        link::add_address(&host, "eth0", "2001:db8::5/64".parse().unwrap()).unwrap();
        assert_eq!(ask(), [Some(HOST); 4]);
        link::add_address(&host, "eth0", "192.0.2.77/24".parse().unwrap()).unwrap();
        let second = ["192.0.2.77", "::ffff:192.0.2.77", "64:ff9b::192.0.2.77"];
        assert_eq!(host.run(|| second.map(why)).unwrap(), [Some(HOST); 3], "a second address of the network");
        let neighbours = ["192.0.2.6", "2001:db8::6"];
        let seen = host.run(|| (neighbours.map(why), why("192.0.2.255"))).unwrap();
        assert_eq!(seen, ([None; 2], Some(BROADCAST)));
    }

    #[test]
    fn a_connection_tells_that_it_has_stayed_here() -> io::Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.2:0")?;
        let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
        assert!(is_own(stream.local_addr()?.ip(), stream.peer_addr()?.ip()));
        assert!(!is_own("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()));
        Ok(())
    }
}
