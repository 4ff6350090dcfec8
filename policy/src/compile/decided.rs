//! Which packets the lines of an entry have already decided about, to find lines that can never be the first to fit.

use std::ops::RangeInclusive;

use crate::{Match, Proto};

/// The union of the lines seen so far.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    tcp: Ports,
    udp: Ports,
    icmp: bool,
}

/// The ports of one protocol.
#[derive(Debug, Default)]
struct Ports {
    /// Decided without looking at the port, which is more than every port: it holds for later fragments too.
    whole: bool,
    /// Sorted, disjoint, and not adjacent.
    ranges: Vec<RangeInclusive<u32>>,
}

impl Decided {
    /// Takes a line in. Whether it decides about any packet that no earlier line decided about.
    pub(crate) fn add(&mut self, line: &Match) -> bool {
        let ports = line.ports.map(|range| u32::from(range.lo)..=u32::from(range.hi));
        let tcp = line.names(Proto::Tcp) && self.tcp.add(ports.clone());
        let udp = line.names(Proto::Udp) && self.udp.add(ports.clone());
        let icmp = line.names(Proto::Icmp) && ports.is_none() && !self.icmp;
        self.icmp |= icmp;
        tcp || udp || icmp
    }
}

impl Ports {
    fn add(&mut self, ports: Option<RangeInclusive<u32>>) -> bool {
        let known = self.whole;
        match ports {
            None => self.whole = true,
            Some(range) => return !known && !range.is_empty() && self.add_range(range),
        }
        !known
    }

    fn add_range(&mut self, range: RangeInclusive<u32>) -> bool {
        let (mut lo, mut hi) = range.into_inner();
        // The known ranges that overlap or touch the new one.
        let from = self.ranges.partition_point(|known| known.end() + 1 < lo);
        let to = self.ranges.partition_point(|known| *known.start() <= hi + 1);
        let touching = &self.ranges[from..to];
        if touching.iter().any(|known| *known.start() <= lo && hi <= *known.end()) {
            return false;
        }
        if let (Some(first), Some(last)) = (touching.first(), touching.last()) {
            lo = lo.min(*first.start());
            hi = hi.max(*last.end());
        }
        self.ranges.splice(from..to, [lo..=hi]);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, PortRange, RuleId};

    fn line(proto: Proto, ports: Option<(u16, u16)>) -> Match {
        let ports = ports.map(|(lo, hi)| PortRange { lo, hi });
        Match { proto, ports, action: Action::Allow, rule: RuleId(1) }
    }

    #[test]
    fn ranges_join_into_what_covers_a_later_one() {
        let mut decided = Decided::default();
        assert!(decided.add(&line(Proto::Tcp, Some((10, 19)))));
        assert!(decided.add(&line(Proto::Tcp, Some((30, 39)))));
        assert!(!decided.add(&line(Proto::Tcp, Some((12, 18)))));
        assert!(decided.add(&line(Proto::Tcp, Some((15, 29)))));
        assert!(!decided.add(&line(Proto::Tcp, Some((10, 39)))));
        assert!(decided.add(&line(Proto::Tcp, Some((10, 40)))));
        assert!(decided.add(&line(Proto::Udp, Some((10, 40)))));
        assert!(!decided.add(&line(Proto::Any, Some((10, 40)))));
        assert_eq!(decided.tcp.ranges, [10..=40]);
    }

    #[test]
    fn every_port_is_less_than_the_whole_protocol() {
        let mut decided = Decided::default();
        assert!(decided.add(&line(Proto::Udp, Some((0, 65535)))));
        assert!(decided.add(&line(Proto::Udp, None)), "later fragments have no port");
        assert!(!decided.add(&line(Proto::Udp, Some((1, 2)))));
        assert!(decided.add(&line(Proto::Any, None)));
        assert!(!decided.add(&line(Proto::Icmp, None)));
    }

    #[test]
    fn what_fits_nothing_decides_nothing() {
        let mut decided = Decided::default();
        assert!(!decided.add(&line(Proto::Icmp, Some((1, 2)))));
        assert!(!decided.add(&line(Proto::Tcp, Some((2, 1)))));
    }
}
