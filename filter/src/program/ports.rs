//! Which line of an entry is the first that fits, as a search in sorted, disjoint ranges of ports.

use std::{collections::BTreeSet, ops::Range};

use lattice_policy::{Match, Proto};

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
        let icmp = matches.iter().find(|line| line.ports.is_none() && names(line.proto, Proto::Icmp));
        self.sets.push(Set { tcp, udp, icmp: icmp.map(|line| counters.line(line)) });
        index(self.sets.len() - 1)
    }

    fn add_ranges(&mut self, proto: Proto, matches: &[Match], counters: &mut Counters) -> Range<u32> {
        let from = index(self.ranges.len());
        self.ranges.extend(disjoint(proto, matches, counters));
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

/// Disjoint ranges of ports, ascending, each with the first line that fits all of it.
fn disjoint(proto: Proto, matches: &[Match], counters: &mut Counters) -> Vec<PortLine> {
    // Where a line begins and where it is over, one behind its last port.
    let mut cuts: Vec<(u32, usize)> = Vec::new();
    for (line, m) in matches.iter().enumerate().filter(|(_, m)| names(m.proto, proto)) {
        let (lo, hi) = m.ports.map_or((0, u16::MAX), |ports| (ports.lo, ports.hi));
        if lo <= hi {
            cuts.extend([(lo.into(), line), (u32::from(hi) + 1, line)]);
        }
    }
    cuts.sort_unstable();
    let mut found: Vec<PortLine> = Vec::new();
    let mut open = BTreeSet::new();
    for (at, &(lo, line)) in cuts.iter().enumerate() {
        if !open.remove(&line) {
            open.insert(line);
        }
        let Some(&(end, _)) = cuts.get(at + 1).filter(|(end, _)| *end > lo) else { continue };
        let Some(m) = open.first().and_then(|line| matches.get(*line)) else { continue };
        let (Ok(lo), Ok(hi)) = (u16::try_from(lo), u16::try_from(end - 1)) else { continue };
        let line = counters.line(m);
        match found.last_mut() {
            Some(last) if last.line == line && u32::from(last.hi) + 1 == lo.into() => last.hi = hi,
            _ => found.push(PortLine { lo, hi, line }),
        }
    }
    found
}

/// Whether one line fits.
pub(super) fn fits(line: &Match, proto: Proto, port: u16) -> bool {
    names(line.proto, proto) && line.ports.is_none_or(|ports| proto != Proto::Icmp && ports.contains(port))
}

fn names(line: Proto, proto: Proto) -> bool {
    line == Proto::Any || line == proto
}

/// Tables are far smaller than 2³² lines: they would not fit in memory.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
