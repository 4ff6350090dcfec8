//! The indices by which peers name our sessions and handshakes (section 5.4.2 of the paper): random, so that they tell
//! nothing, and unique.

use std::collections::hash_map::Entry;

use crate::{hasher::FastMap, peer::Slot, sources::Random};

/// The indices in use, and whose each is.
#[derive(Default)]
pub(crate) struct Indices(FastMap<u32, Slot>);

impl Indices {
    /// A new index. There are at most six of a peer, so it is found at once.
    pub(crate) fn allocate(&mut self, slot: Slot, random: &mut dyn Random) -> u32 {
        loop {
            let index = u32::from_le_bytes(random.array());
            if let Entry::Vacant(free) = self.0.entry(index) {
                free.insert(slot);
                return index;
            }
        }
    }

    /// Makes indices free again.
    pub(crate) fn release(&mut self, freed: impl IntoIterator<Item = Option<u32>>) {
        for index in freed.into_iter().flatten() {
            self.0.remove(&index);
        }
    }

    /// Whose an index is.
    pub(crate) fn owner(&self, index: u32) -> Option<Slot> {
        self.0.get(&index).copied()
    }

    /// All of them, in order: for tests and the fuzzer.
    pub(crate) fn all(&self) -> Vec<u32> {
        let mut all: Vec<_> = self.0.keys().copied().collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Repeats(u8);

    impl Random for Repeats {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0 / 2);
            self.0 += 1;
        }
    }

    #[test]
    fn no_two_are_the_same_until_one_is_free_again() {
        let (mut indices, mut random) = (Indices::default(), Repeats(0));
        let mut take = |indices: &mut Indices, slot| indices.allocate(slot, &mut random);
        assert_eq!([take(&mut indices, 1), take(&mut indices, 2)], [0, 0x0101_0101]);
        assert_eq!((indices.owner(0), indices.owner(0x0101_0101)), (Some(1), Some(2)));
        indices.release([Some(0x0101_0101), None]);
        assert_eq!(take(&mut indices, 3), 0x0101_0101);
    }
}
