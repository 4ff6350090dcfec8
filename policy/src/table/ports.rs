//! Lines of which the first that fits decides, cut into intervals of ports of which only one fits.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use crate::{Match, Proto};

/// Disjoint intervals of ports, in order, each with the first of `matches` that fits all of it. Ports that no line fits are
/// left out.
pub fn port_intervals(proto: Proto, matches: &[Match]) -> Vec<(RangeInclusive<u16>, &Match)> {
    let mut edges: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (line, m) in matches.iter().enumerate().filter(|(_, m)| m.names(proto)) {
        let (lo, end) = m.ports.map_or((0, 0x1_0000), |p| (p.lo.into(), u32::from(p.hi) + 1));
        // A reversed range fits nothing.
        if lo < end {
            edges.entry(lo).or_default().push(line);
            edges.entry(end).or_default().push(line);
        }
    }
    let mut open = BTreeSet::new();
    let mut found: Vec<(u32, u32, &Match)> = Vec::new();
    let ends: Vec<u32> = edges.keys().skip(1).copied().collect();
    for ((lo, lines), end) in edges.into_iter().zip(ends) {
        for line in lines {
            if !open.remove(&line) {
                open.insert(line);
            }
        }
        let Some(m) = open.first().and_then(|&line| matches.get(line)) else { continue };
        match found.last_mut() {
            Some((_, last, same)) if *last == lo && (same.action, same.rule) == (m.action, m.rule) => {
                *last = end;
            }
            _ => found.push((lo, end, m)),
        }
    }
    let inclusive = |(lo, end, m)| Some((u16::try_from(lo).ok()?..=u16::try_from(end - 1).ok()?, m));
    found.into_iter().filter_map(inclusive).collect()
}

/// The first of `matches` that fits ICMP, which has no ports.
pub fn icmp_line(matches: &[Match]) -> Option<&Match> {
    matches.iter().find(|m| m.fits(Proto::Icmp, None))
}
