//! Which counters of a session were used (RFC 6479, section 5.4.6 of the paper): a bitmap that is moved by whole words.

/// How far behind the newest counter a packet may come: as far as a reordering path carries it at 10 Gbit/s in 10 ms.
pub(crate) const WINDOW: u64 = 8192;

const WORD: u64 = u64::BITS as u64;

/// One word more than the window: the newest is only partly used.
const WORDS: u64 = WINDOW / WORD + 1;

/// The counters that were received.
pub(crate) struct Replay {
    /// One more than the greatest.
    next: u64,
    seen: [u64; WORDS as usize],
}

impl Replay {
    pub(crate) fn new() -> Self {
        Self { next: 0, seen: [0; WORDS as usize] }
    }

    /// Whether `counter` is new, as far as that is known. Says nothing about who sent it.
    pub(crate) fn is_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        let (word, bit) = place(counter);
        self.next - counter <= WINDOW && self.seen[word] & bit == 0
    }

    /// Takes note of an authentic `counter`, which must be below `u64::MAX`. False when it is not new.
    pub(crate) fn accept(&mut self, counter: u64) -> bool {
        if !self.is_new(counter) {
            return false;
        }
        if counter >= self.next {
            // The words after the newest one, up to the new one's, hold counters of long ago.
            let newest = self.next.saturating_sub(1) / WORD;
            let words = (counter / WORD - newest).min(WORDS);
            (newest + 1..=newest + words).for_each(|word| self.seen[(word % WORDS) as usize] = 0);
            self.next = counter + 1;
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
        true
    }
}

fn place(counter: u64) -> (usize, u64) {
    ((counter / WORD % WORDS) as usize, 1 << (counter % WORD))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_each_once_within_the_window_and_nothing_older() {
        let mut replay = Replay::new();
        assert!(replay.accept(0) && !replay.accept(0));
        assert!(replay.accept(WINDOW) && replay.accept(1) && !replay.accept(1));
        assert!(!replay.accept(0), "one too old");
        assert!(replay.accept(u64::MAX - 1) && !replay.accept(u64::MAX - 1));
        assert!(replay.accept(u64::MAX - WINDOW) && !replay.accept(u64::MAX - WINDOW - 1));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((any::<bool>(), 0u64..3 * WINDOW, 0u64..200), 1..300)) {
            let (mut replay, mut seen, mut newest) = (Replay::new(), HashSet::new(), 0u64);
            for (forward, far, near) in steps {
                let counter = if forward { newest + far.min(near * near) } else { newest.saturating_sub(far) };
                let expected = counter + WINDOW > newest && !seen.contains(&counter);
                prop_assert_eq!(replay.is_new(counter), expected);
                prop_assert_eq!(replay.accept(counter), expected);
                seen.insert(counter);
                newest = newest.max(counter);
            }
        }
    }
}
