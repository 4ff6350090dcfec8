//! Cryptokey routing: which peer owns an address, by longest prefix.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::hasher::FastMap;

/// A table of networks. Looking an address up costs one probe per distinct prefix length, which in an overlay is one or
/// two, however many peers there are.
#[derive(Debug)]
pub(crate) struct Routes<T> {
    v4: Family<T>,
    v6: Family<T>,
}

#[derive(Debug)]
struct Family<T> {
    /// Longest prefix first, once finished.
    lengths: Vec<(u8, FastMap<u128, T>)>,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { v4: Family { lengths: Vec::new() }, v6: Family { lengths: Vec::new() } }
    }
}

impl<T: Copy> Routes<T> {
    /// Gives `net` to `owner`, whoever had it. Call [`Routes::finish`] after the last one.
    pub(crate) fn insert(&mut self, net: IpNet, owner: T) {
        self.family(net.addr()).insert(key(net.addr()), width(net.addr()), net.prefix_len(), owner);
    }

    /// Makes the table ready for [`Routes::lookup`].
    pub(crate) fn finish(&mut self) {
        for family in [&mut self.v4, &mut self.v6] {
            family.lengths.sort_unstable_by_key(|(length, _)| std::cmp::Reverse(*length));
        }
    }

    /// The owner of the longest network that holds `address`.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<T> {
        let family = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let (key, width) = (key(address), width(address));
        family.lengths.iter().find_map(|(length, nets)| nets.get(&masked(key, width, *length)).copied())
    }

    fn family(&mut self, address: IpAddr) -> &mut Family<T> {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

impl<T> Family<T> {
    fn insert(&mut self, key: u128, width: u8, length: u8, owner: T) {
        let nets = match self.lengths.iter().position(|(found, _)| *found == length) {
            Some(position) => &mut self.lengths[position].1,
            None => &mut self.lengths.push_mut((length, FastMap::default())).1,
        };
        nets.insert(masked(key, width, length), owner);
    }
}

fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `length` bits of a key that has `width`.
fn masked(key: u128, width: u8, length: u8) -> u128 {
    let host_bits = u32::from(width - length);
    key.checked_shr(host_bits).map_or(0, |network| network << host_bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net() -> impl Strategy<Value = IpNet> {
        // Few distinct bits, so that networks nest and collide.
        let v4 = (0u32..16, 0u8..=32)
            .prop_map(|(bits, length)| (IpAddr::from((bits << 28).to_be_bytes()), length));
        let v6 = (0u128..16, 0u8..=128)
            .prop_map(|(bits, length)| (IpAddr::from((bits << 124).to_be_bytes()), length));
        prop_oneof![v4, v6].prop_map(|(address, length)| IpNet::new(address, length).unwrap())
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_search(nets in prop::collection::vec(net(), 0..24), probes in prop::collection::vec(net(), 1..24)) {
            let mut routes = Routes::default();
            for (owner, net) in nets.iter().enumerate() {
                routes.insert(*net, owner);
            }
            routes.finish();
            for address in probes.iter().map(IpNet::addr) {
                // The longest that holds it; of equals, the last given.
                let expected = nets.iter().enumerate().filter(|(_, net)| net.contains(&address))
                    .max_by_key(|(owner, net)| (net.prefix_len(), *owner)).map(|(owner, _)| owner);
                prop_assert_eq!(routes.lookup(address), expected);
            }
        }
    }

    #[test]
    fn families_do_not_mix() {
        let mut routes = Routes::default();
        routes.insert("::/0".parse().unwrap(), 6);
        routes.finish();
        assert_eq!(routes.lookup("10.0.0.1".parse().unwrap()), None);
        assert_eq!(routes.lookup("::ffff:10.0.0.1".parse().unwrap()), Some(6));
    }
}
