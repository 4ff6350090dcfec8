//! The chain: which epoch, number and hash the next line carries.

use sha2::{Digest, Sha256};

use crate::Fault;

/// The fields of a line that tie it to the line above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) prev: String,
}

/// Where a chain stands: the last line's numbers and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    epoch: u64,
    seq: u64,
    hash: [u8; 32],
}

impl Chain {
    /// Before the first line of a file.
    pub(crate) const START: Self = Self { epoch: 0, seq: 0, hash: [0; 32] };

    /// Continues behind a file's last line in a new epoch: `now`, in microseconds, so that an epoch is not repeated
    /// when the file was lost; later than the last one even when the clock was set back.
    pub(crate) fn begin_epoch(&mut self, now: u64) {
        self.epoch = now.max(self.epoch.saturating_add(1));
        self.seq = 0;
    }

    /// What the next line carries.
    pub(crate) fn next(&self) -> Link {
        Link { epoch: self.epoch, seq: self.seq.saturating_add(1), prev: hex::encode(self.hash) }
    }

    /// Goes on behind `line` (without its newline), which carries `link`.
    pub(crate) fn advance(&mut self, link: &Link, line: &[u8]) {
        *self = Self { epoch: link.epoch, seq: link.seq, hash: Sha256::digest(line).into() };
    }

    /// Whether `link` may follow: the hash of the line above, and the next number of the epoch or the first of a
    /// later one.
    pub(crate) fn check(&self, link: &Link) -> Result<(), Fault> {
        let expected = hex::encode(self.hash);
        if link.prev != expected {
            return Err(Fault::Chain { found: link.prev.chars().take(expected.len()).collect(), expected });
        }
        let next = link.epoch == self.epoch && self.seq.checked_add(1) == Some(link.seq);
        if next || (link.epoch > self.epoch && link.seq == 1) {
            return Ok(());
        }
        let Link { epoch, seq, .. } = *link;
        Err(Fault::Sequence { epoch, seq, last_epoch: self.epoch, last_seq: self.seq })
    }

    /// The epoch of the last line.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_may_go_back() {
        let mut chain = Chain::START;
        chain.begin_epoch(1_000);
        assert_eq!(chain.next(), Link { epoch: 1_000, seq: 1, prev: "0".repeat(64) });
        chain.begin_epoch(10);
        assert_eq!(chain.next().epoch, 1_001);
    }

    #[test]
    fn numbers_count_up_within_an_epoch_and_start_again_in_the_next() {
        let mut chain = Chain::START;
        let prev = |chain: &Chain| hex::encode(chain.hash);
        let link = |chain: &Chain, epoch, seq| Link { epoch, seq, prev: prev(chain) };
        assert!(chain.check(&link(&chain, 5, 1)).is_ok());
        chain.advance(&link(&chain, 5, 1), b"first");
        assert_eq!(chain.next().prev, "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e");
        for (epoch, seq, ok) in
            [(5, 2, true), (6, 1, true), (5, 1, false), (5, 3, false), (4, 1, false), (6, 2, false)]
        {
            assert_eq!(chain.check(&link(&chain, epoch, seq)).is_ok(), ok, "{epoch} {seq}");
        }
        let forged = Link { prev: "0".repeat(64), ..link(&chain, 5, 2) };
        assert!(matches!(chain.check(&forged), Err(Fault::Chain { .. })));
    }
}
