//! The ports of a rule.

use super::{Cause, MAX_PORTS, error::shown};
use crate::PortRange;

/// Reads `80,8000-8100` into ranges that are sorted, disjoint and not adjacent.
pub(super) fn parse(text: &str) -> Result<Vec<PortRange>, Cause> {
    let mut ranges = Vec::new();
    for part in text.split(',') {
        if ranges.len() == MAX_PORTS {
            return Err(Cause::TooManyPorts);
        }
        ranges.push(range(part)?);
    }
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let joins = u32::from(next.lo) <= u32::from(kept.hi) + 1;
        if joins {
            kept.hi = kept.hi.max(next.hi);
        }
        joins
    });
    Ok(ranges)
}

fn range(part: &str) -> Result<PortRange, Cause> {
    let bad = || Cause::Port(shown(part));
    let (lo, hi) = part.split_once('-').unwrap_or((part, part));
    let range = PortRange { lo: port(lo).ok_or_else(bad)?, hi: port(hi).ok_or_else(bad)? };
    if range.hi < range.lo { Err(Cause::ReversedPorts(shown(part))) } else { Ok(range) }
}

/// `u16::from_str` alone would take `+80` and `0080`.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}
