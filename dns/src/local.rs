//! Names that never leave the host, whatever the policy says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::{Name, RData, RecordType, rdata::PTR};
use ipnet::IpNet;

use crate::{
    names::{Table, ZONE},
    question::Kind,
};

/// What we know ourselves.
#[derive(Debug, PartialEq)]
pub(crate) enum Local {
    /// The name exists; it may have nothing of the type.
    Found(Vec<RData>),
    /// There is no such name.
    None,
}

/// Networks whose reverse names belong to nobody outside (RFC 6303 §4, RFC 6598 §4, RFC 3927).
const PRIVATE: [(IpAddr, u8); 13] = [
    (IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)), 24),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), 15),
    (IpAddr::V4(Ipv4Addr::new(255, 255, 255, 255)), 32),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 127),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// Answers A, AAAA, HTTPS and SVCB of the overlay's names and of localhost. `name` is a host name in lower case.
pub(crate) fn forward(name: &str, kind: Option<Kind>, names: &Table) -> Option<Local> {
    if let Some(peer) = below(name, ZONE) {
        return Some(match names.addresses(peer) {
            Some(addresses) => Local::Found(data(addresses, kind)),
            None => Local::None,
        });
    }
    // RFC 6761 §6.3
    if name == "localhost" || below(name, "localhost").is_some() {
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Some(Local::Found(data(&both, kind)));
    }
    None
}

/// Answers PTR of the overlay's addresses and of private ones; none when the address may be somebody else's.
pub(crate) fn reverse(name: &Name, names: &Table) -> Option<Local> {
    let net = name.parse_arpa_name().ok()?;
    if net.prefix_len() == net.max_prefix_len()
        && let Some(peer) = names.peer(net.addr())
        && let Ok(peer) = Name::from_labels([peer.as_bytes(), ZONE.as_bytes()])
    {
        return Some(Local::Found(vec![RData::PTR(PTR(peer))]));
    }
    let private = |(address, length): (IpAddr, u8)| {
        IpNet::new(address, length).is_ok_and(|private| private.contains(&net))
    };
    (names.holds(&net) || PRIVATE.into_iter().any(private)).then_some(Local::None)
}

/// The records of `addresses` that are of the kind; nothing without a kind.
pub(crate) fn data(addresses: &[IpAddr], kind: Option<Kind>) -> Vec<RData> {
    let fit = addresses.iter().filter(|address| kind.is_some_and(|kind| kind.fits(**address)));
    fit.map(|address| match *address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    })
    .collect()
}

/// Which types have an address; the others that get this far are answered empty.
pub(crate) fn kind_of(record_type: RecordType) -> Option<Kind> {
    match record_type {
        RecordType::A => Some(Kind::A),
        RecordType::AAAA => Some(Kind::Aaaa),
        _ => None,
    }
}

fn below<'n>(name: &'n str, zone: &str) -> Option<&'n str> {
    name.strip_suffix(zone)?.strip_suffix('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Names;

    fn names() -> Names {
        let names = Names::default();
        let tool = vec!["10.42.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        names.replace([("tool".into(), tool)], ["w-7", "Acme"], vec!["203.0.113.0/24".parse().unwrap()]);
        names
    }

    #[test]
    fn peers_are_found_with_and_without_their_workspace() {
        let names = names().table();
        let ask = |name: &str, kind| forward(name, Some(kind), &names);
        let four = || Local::Found(vec![RData::A("10.42.0.2".parse().unwrap())]);
        let six = Local::Found(vec![RData::AAAA("fd00::2".parse().unwrap())]);
        assert_eq!(ask("tool.lattice", Kind::A), Some(four()));
        assert_eq!(ask("tool.acme.lattice", Kind::Aaaa), Some(six));
        assert_eq!(ask("tool.w-7.lattice", Kind::A), Some(four()));
        assert_eq!(forward("tool.lattice", None, &names), Some(Local::Found(vec![])));
        for missing in ["other.lattice", "tool.other.lattice", "a.tool.lattice", "tool.acme.acme.lattice"] {
            assert_eq!(ask(missing, Kind::A), Some(Local::None), "{missing}");
        }
        for outside in ["lattice", "tool.lattice.example.com", "xlattice", "tool.xlattice", "mylocalhost"] {
            assert_eq!(ask(outside, Kind::A), None, "{outside}");
        }
    }

    #[test]
    fn localhost_stays_here() {
        let loopback = Some(Local::Found(vec![RData::A(Ipv4Addr::LOCALHOST.into())]));
        assert_eq!(forward("localhost", Some(Kind::A), &Table::default()), loopback);
        assert_eq!(forward("a.localhost", Some(Kind::A), &Table::default()), loopback);
    }

    #[test]
    fn reverse_names_are_answered_only_for_ours_and_private_ones() {
        let names = names().table();
        let ask = |address: &str| reverse(&Name::from(address.parse::<IpAddr>().unwrap()), &names);
        let tool = Name::from_ascii("tool.lattice.").unwrap();
        assert_eq!(ask("10.42.0.2"), Some(Local::Found(vec![RData::PTR(PTR(tool.clone()))])));
        assert_eq!(ask("fd00::2"), Some(Local::Found(vec![RData::PTR(PTR(tool))])));
        for nobody in ["203.0.113.7", "10.0.0.1", "192.168.3.4", "172.31.0.1", "127.0.0.1", "::1", "fe80::1"]
        {
            assert_eq!(ask(nobody), Some(Local::None), "{nobody}");
        }
        for outside in ["8.8.8.8", "172.32.0.1", "2001:db8::1"] {
            assert_eq!(ask(outside), None, "{outside}");
        }
        for name in ["10.in-addr.arpa.", "168.192.in-addr.arpa."] {
            assert_eq!(reverse(&Name::from_ascii(name).unwrap(), &names), Some(Local::None), "{name}");
        }
        for name in ["in-addr.arpa.", "192.in-addr.arpa.", "x.10.in-addr.arpa.", "a.com."] {
            assert_eq!(reverse(&Name::from_ascii(name).unwrap(), &names), None, "{name}");
        }
    }
}
