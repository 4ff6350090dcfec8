//! Longest-prefix match as a search in a sorted list: the address space is cut where what holds for it changes.

/// No prefix holds.
const NOWHERE: u32 = u32::MAX;

/// For each address the set of the longest prefix around it.
#[derive(Debug)]
pub(crate) struct Prefixes<A> {
    /// The first address of each piece, ascending; apart from `sets`, so that a search touches fewer cache lines.
    starts: Vec<A>,
    sets: Vec<u32>,
}

impl<A: Ord + TryFrom<u128>> Prefixes<A> {
    /// From prefixes as (first address, last address, set): sorted, each before those that lie in it.
    pub(super) fn new(prefixes: &[(u128, u128, u32)]) -> Self {
        // A piece that would begin behind the last address of the family is none.
        let pieces =
            cut(prefixes).into_iter().filter_map(|(start, set)| Some((A::try_from(start).ok()?, set)));
        let (starts, sets) = pieces.unzip();
        Self { starts, sets }
    }

    pub(super) fn find(&self, address: &A) -> Option<u32> {
        let after = self.starts.partition_point(|start| start <= address);
        self.sets.get(after.checked_sub(1)?).copied().filter(|set| *set != NOWHERE)
    }
}

fn cut(prefixes: &[(u128, u128, u32)]) -> Vec<(u128, u32)> {
    let mut pieces: Vec<(u128, u32)> = Vec::with_capacity(2 * prefixes.len());
    // The prefixes around the place that the sweep has reached, the shortest first.
    let mut around: Vec<(u128, u32)> = Vec::new();
    for &(first, last, set) in prefixes {
        close(&mut pieces, &mut around, first);
        begin(&mut pieces, first, set);
        around.push((last, set));
    }
    close(&mut pieces, &mut around, u128::MAX);
    pieces
}

/// Ends every prefix around that does not reach `next`.
fn close(pieces: &mut Vec<(u128, u32)>, around: &mut Vec<(u128, u32)>, next: u128) {
    while let Some((last, _)) = around.pop_if(|(last, _)| *last < next) {
        begin(pieces, last + 1, around.last().map_or(NOWHERE, |(_, set)| *set));
    }
}

/// From `at` on, `set` holds. Several can begin at one place: the last said is the longest.
fn begin(pieces: &mut Vec<(u128, u32)>, at: u128, set: u32) {
    match pieces.last_mut() {
        Some((start, old)) if *start == at => *old = set,
        _ => pieces.push((at, set)),
    }
}
