//! Sets of addresses as the fewest networks.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Subnets};

/// The networks that hold exactly `addresses`, in order.
pub(super) fn aggregated(addresses: impl Iterator<Item = Ipv4Addr>) -> Vec<IpNet> {
    let mut addresses: Vec<Ipv4Addr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let runs = addresses.chunk_by(|a, b| a.to_bits().checked_add(1) == Some(b.to_bits()));
    runs.flat_map(|run| Ipv4Subnets::new(run[0], run[run.len() - 1], 0)).map(IpNet::V4).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn nets(addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        aggregated(addresses).iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn neighbours_join() {
        assert_eq!(nets(&[]), [""; 0]);
        assert_eq!(nets(&["10.0.0.1"]), ["10.0.0.1/32"]);
        assert_eq!(nets(&["10.0.0.3", "10.0.0.2", "10.0.0.2"]), ["10.0.0.2/31"]);
        assert_eq!(
            nets(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9"]),
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.9/32"]
        );
        assert_eq!(nets(&["255.255.255.255", "0.0.0.0"]), ["0.0.0.0/32", "255.255.255.255/32"]);
    }

    proptest! {
        #[test]
        fn the_set_stays_the_same(hosts in prop::collection::btree_set(0u32..64, 0..64)) {
            let address = |host: &u32| Ipv4Addr::from(0x0A00_0000 + host);
            let nets = aggregated(hosts.iter().map(address));
            let held: Vec<Ipv4Addr> = nets.iter().flat_map(|net| match net {
                IpNet::V4(net) => (net.network().to_bits()..=net.broadcast().to_bits()).map(Ipv4Addr::from),
                IpNet::V6(_) => unreachable!(),
            }).collect();
            prop_assert_eq!(held.len(), hosts.len(), "nothing twice");
            prop_assert_eq!(held.into_iter().collect::<BTreeSet<_>>(), hosts.iter().map(address).collect());
        }
    }
}
