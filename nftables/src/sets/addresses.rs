//! Prefixes of which the longest decides, cut into intervals of which only one fits.

use std::net::IpAddr;

use lattice_policy::Entry;

/// Disjoint intervals, in order, each with the entry that decides about its addresses. Addresses about which none says
/// anything are left out.
pub(super) fn cut(entries: &[Entry]) -> Vec<(IpAddr, IpAddr, &Entry)> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    // A prefix comes before what lies in it.
    sorted.sort_by_key(|entry| entry.net);
    let (v4, v6): (Vec<&Entry>, Vec<&Entry>) =
        sorted.into_iter().partition(|entry| entry.net.addr().is_ipv4());
    let mut sweep = Sweep::default();
    sweep.family(&v4);
    sweep.family(&v6);
    sweep.found
}

/// Whether `next` is the address after `last`.
pub(super) fn adjacent(last: IpAddr, next: IpAddr) -> bool {
    match (last, next) {
        (IpAddr::V4(last), IpAddr::V4(next)) => last.to_bits().checked_add(1) == Some(next.to_bits()),
        (IpAddr::V6(last), IpAddr::V6(next)) => last.to_bits().checked_add(1) == Some(next.to_bits()),
        _ => false,
    }
}

#[derive(Default)]
struct Sweep<'a> {
    found: Vec<(IpAddr, IpAddr, &'a Entry)>,
    /// The prefixes that cover the place of the sweep, the longest last.
    covering: Vec<&'a Entry>,
    /// The first address that is not cut yet; none after the last of its family.
    at: Option<IpAddr>,
}

impl<'a> Sweep<'a> {
    fn family(&mut self, entries: &[&'a Entry]) {
        for &entry in entries {
            let first = entry.net.network();
            self.close(Some(first));
            if let Some(cover) = self.covering.last() {
                let before = self.at.filter(|&at| at < first).zip(step(first, false));
                if let Some((at, end)) = before {
                    self.found.push((at, end, cover));
                }
            }
            self.at = Some(first);
            self.covering.push(entry);
        }
        self.close(None);
        self.found.retain(|(_, _, entry)| !entry.matches.is_empty());
    }

    /// Cuts what is left of the prefixes that end before `next`, or of all.
    fn close(&mut self, next: Option<IpAddr>) {
        while let Some(cover) =
            self.covering.pop_if(|cover| next.is_none_or(|next| !cover.net.contains(&next)))
        {
            let end = cover.net.broadcast();
            if let Some(at) = self.at.filter(|&at| at <= end) {
                self.found.push((at, end, cover));
                self.at = step(end, true);
            }
        }
    }
}

fn step(ip: IpAddr, up: bool) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) if up => IpAddr::V4(ip.to_bits().checked_add(1)?.into()),
        IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().checked_sub(1)?.into()),
        IpAddr::V6(ip) if up => IpAddr::V6(ip.to_bits().checked_add(1)?.into()),
        IpAddr::V6(ip) => IpAddr::V6(ip.to_bits().checked_sub(1)?.into()),
    })
}
