//! What an answer of a nameserver comes to: the addresses that the records lead to from the name that was asked for.

use std::{net::IpAddr, time::Duration};

use hickory_proto::rr::Name;

use crate::{
    limits::{MAX_ADDRESSES, MAX_CHAIN},
    question::Kind,
    record::{Data, Record},
};

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// At least one address, all of the kind asked for.
    Addresses { addresses: Vec<IpAddr>, ttl: Duration },
    /// The name exists and has none (NODATA).
    Nothing,
    /// There is no such name (NXDOMAIN).
    NoName,
    /// No nameserver could say (SERVFAIL).
    Failed,
}

/// Follows the CNAMEs from `name` within `records`. Records that it does not come by do not count; the least time to live of
/// those it does counts for all. A chain that is too long, or a circle, leads nowhere.
pub(crate) fn follow(name: &Name, kind: Kind, records: &[Record]) -> Outcome {
    let mut name = name;
    let mut ttl = u32::MAX;
    for _ in 0..=MAX_CHAIN {
        let here = || records.iter().filter(|record| record.name == *name);
        let mut addresses = Vec::new();
        for record in here() {
            if let Data::Address(address) = record.data
                && kind.fits(address)
                && addresses.len() < MAX_ADDRESSES
            {
                ttl = ttl.min(record.ttl);
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        if !addresses.is_empty() {
            return Outcome::Addresses { addresses, ttl: Duration::from_secs(sane(ttl).into()) };
        }
        let next = here().find_map(|record| match &record.data {
            Data::Alias(target) => Some((target, record.ttl)),
            _ => None,
        });
        let Some((target, its_ttl)) = next else { return Outcome::Nothing };
        ttl = ttl.min(its_ttl);
        name = target;
    }
    Outcome::Failed
}

/// RFC 2181 §8: with the highest bit set, it is zero.
fn sane(ttl: u32) -> u32 {
    if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, ttl: u32, address: &str) -> Record {
        Record { name: name(owner), ttl, data: Data::Address(address.parse().unwrap()) }
    }

    fn cname(owner: &str, ttl: u32, target: &str) -> Record {
        Record { name: name(owner), ttl, data: Data::Alias(name(target)) }
    }

    fn found(addresses: &[&str], ttl: u64) -> Outcome {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Outcome::Addresses { addresses, ttl: Duration::from_secs(ttl) }
    }

    #[test]
    fn chains_are_followed_in_any_order_and_the_least_ttl_counts() {
        let records =
            [a("c.net.", 60, "192.0.2.1"), cname("b.com.", 30, "C.net."), cname("A.com.", 90, "b.com.")];
        assert_eq!(follow(&name("a.com."), Kind::A, &records), found(&["192.0.2.1"], 30));
    }

    #[test]
    fn what_the_name_does_not_lead_to_does_not_count() {
        let records = [
            a("evil.com.", 1, "192.0.2.66"),
            a("a.com.", 1, "2001:db8::1"),
            Record { name: name("a.com."), ttl: 1, data: Data::Other },
            a("a.com.", 60, "192.0.2.1"),
            a("a.com.", 60, "192.0.2.1"),
        ];
        assert_eq!(follow(&name("a.com."), Kind::A, &records), found(&["192.0.2.1"], 60));
        assert_eq!(follow(&name("b.com."), Kind::A, &records), Outcome::Nothing);
        assert_eq!(follow(&name("a.com."), Kind::A, &[cname("a.com.", 1, "b.com.")]), Outcome::Nothing);
    }

    #[test]
    fn circles_and_long_chains_lead_nowhere() {
        let circle = [cname("a.com.", 1, "b.com."), cname("b.com.", 1, "a.com.")];
        assert_eq!(follow(&name("a.com."), Kind::A, &circle), Outcome::Failed);
        let chain = |links: usize| {
            let mut records: Vec<_> =
                (0..links).map(|i| cname(&format!("n{i}.com."), 1, &format!("n{}.com.", i + 1))).collect();
            records.push(a(&format!("n{links}.com."), 1, "192.0.2.1"));
            follow(&name("n0.com."), Kind::A, &records)
        };
        assert_eq!(chain(MAX_CHAIN), found(&["192.0.2.1"], 1));
        assert_eq!(chain(MAX_CHAIN + 1), Outcome::Failed);
    }

    #[test]
    fn addresses_are_bounded_and_a_huge_ttl_is_none() {
        let many: Vec<_> = (0..200).map(|i| a("a.com.", u32::MAX, &format!("192.0.2.{i}"))).collect();
        let Outcome::Addresses { addresses, ttl } = follow(&name("a.com."), Kind::A, &many) else { panic!() };
        assert_eq!((addresses.len(), ttl), (MAX_ADDRESSES, Duration::ZERO));
    }
}
