//! Longest-prefix match in a sorted list.

use std::net::IpAddr;

use ipnet::IpNet;

/// The entry with the longest prefix that contains `remote`, of entries sorted by their `net`.
///
/// The last entry that sorts not after the address either contains it, and then nothing longer does, or it leaves the
/// address' path after some bits; every prefix of the address that is in the list is then at most that long. So
/// each step is one binary search and shortens the prefix looked for.
pub(crate) fn prefix<T>(entries: &[T], net: impl Fn(&T) -> IpNet, remote: IpAddr) -> Option<&T> {
    let mut probe = IpNet::from(remote);
    loop {
        let after = entries.partition_point(|entry| net(entry) <= probe);
        let last = entries.get(after.checked_sub(1)?)?;
        let held = net(last);
        if held.contains(&remote) {
            return Some(last);
        }
        let shared = shared_bits(held.addr(), remote)?;
        probe = IpNet::new(remote, shared).ok()?.trunc();
    }
}

/// How many leading bits two addresses of one family have in common.
fn shared_bits(a: IpAddr, b: IpAddr) -> Option<u8> {
    let bits = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return None,
    };
    u8::try_from(bits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    #[test]
    fn finds_what_a_scan_finds() {
        let nets = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.0.0/24",
            "10.1.128.0/17",
            "10.1.128.9/32",
            "::/0",
            "fd00::/8",
        ];
        let entries: Vec<Entry> =
            nets.iter().map(|net| Entry { net: net.parse().unwrap(), matches: Vec::new() }).collect();
        assert!(entries.is_sorted_by_key(|entry| entry.net));
        for address in [
            "9.255.255.255",
            "10.0.0.0",
            "10.1.0.255",
            "10.1.1.0",
            "10.1.200.1",
            "10.1.128.9",
            "11.0.0.0",
            "::",
            "fd01::",
        ] {
            let remote: IpAddr = address.parse().unwrap();
            let scan = entries
                .iter()
                .filter(|entry| entry.net.contains(&remote))
                .max_by_key(|entry| entry.net.prefix_len());
            assert_eq!(prefix(&entries, |entry| entry.net, remote), scan, "{address}");
        }
    }
}
