//! Which line of an entry is the first that fits, as a search in sorted, disjoint ranges of ports.

use std::ops::Range;

use lattice_policy::{
    Match, Proto,
    table::{icmp_line, port_intervals},
};

use super::{Line, counters::Counters};

/// The lines of all entries of one direction.
#[derive(Debug, Default)]
pub(super) struct Ports {
    sets: Vec<Set>,
    ranges: Vec<PortLine>,
}

/// The lines of one entry: where in `ranges` they are.
#[derive(Debug)]
struct Set {
    tcp: Range<u32>,
    udp: Range<u32>,
    icmp: Option<Line>,
}

#[derive(Debug, PartialEq, Eq)]
struct PortLine {
    lo: u16,
    hi: u16,
    line: Line,
}

impl Ports {
    /// Adds the lines of an entry, of which the first that fits decides, and says where.
    pub(super) fn add(&mut self, matches: &[Match], counters: &mut Counters) -> u32 {
        let tcp = self.add_ranges(Proto::Tcp, matches, counters);
        let udp = self.add_ranges(Proto::Udp, matches, counters);
        let icmp = icmp_line(matches).map(|line| counters.line(line));
        self.sets.push(Set { tcp, udp, icmp });
        index(self.sets.len() - 1)
    }

    fn add_ranges(&mut self, proto: Proto, matches: &[Match], counters: &mut Counters) -> Range<u32> {
        let from = index(self.ranges.len());
        self.ranges.extend(port_intervals(proto, matches).into_iter().map(|(ports, line)| {
            let (lo, hi) = ports.into_inner();
            PortLine { lo, hi, line: counters.line(line) }
        }));
        from..index(self.ranges.len())
    }

    pub(super) fn find(&self, set: u32, proto: Proto, port: u16) -> Option<Line> {
        let set = self.sets.get(set as usize)?;
        let place = match proto {
            Proto::Tcp => &set.tcp,
            Proto::Udp => &set.udp,
            Proto::Icmp => return set.icmp,
            Proto::Any => return None,
        };
        let ranges = self.ranges.get(place.start as usize..place.end as usize)?;
        let range = ranges.get(ranges.partition_point(|range| range.hi < port))?;
        (range.lo <= port).then_some(range.line)
    }
}

/// Tables are far smaller than 2³² lines: they would not fit in memory.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
