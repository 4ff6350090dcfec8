//! What the programs counted.

use lattice_policy::{Counter, Reason, RuleId};

use super::{Enforcer, epoch_of, read};
use crate::{EbpfError, abi, event};

/// What the program had to leave out, because a table of the kernel was full. No verdict is changed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overflow {
    /// Allowed packets whose flow, or whose datagram's fragments, could not be remembered: what follows them is judged by
    /// itself, so replies and later fragments are denied.
    pub untracked: u64,
    /// Packets that no counter of a rule has: in policies of more than 511 rules, only so many of the further ones have
    /// one.
    pub uncounted: u64,
}

impl Enforcer {
    /// How many verdicts were enforced but not told, because the ring was full.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn lost(&self) -> Result<u64, EbpfError> {
        Ok(self.read_stats()?[abi::LOST])
    }

    /// How many packets each reason decided, in the order of the reasons' numbers.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn stats(&self) -> Result<Vec<(Reason, u64)>, EbpfError> {
        let counts = self.read_stats()?;
        Ok(event::REASONS.into_iter().map(|reason| (reason, counts[reason as usize])).collect())
    }

    /// What each rule of the policy in force decided about since it came into force: packets that it denied, and those of
    /// the flows that it let in, both ways. [`RuleId::NONE`] is what no rule named. A rule that decided nothing is left
    /// out.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn counters(&self) -> Result<Vec<(RuleId, Counter)>, EbpfError> {
        self.counters.read(epoch_of(read(&self.config)?))
    }

    /// What the kernel's tables had no room for, since the first policy.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn overflow(&self) -> Result<Overflow, EbpfError> {
        let counts = self.read_stats()?;
        Ok(Overflow { untracked: counts[abi::UNTRACKED], uncounted: counts[abi::UNCOUNTED] })
    }

    fn read_stats(&self) -> Result<[u64; abi::REASONS], EbpfError> {
        let per_cpu = self.stats.get(&0, 0).map_err(EbpfError::map("read", "STATS"))?;
        let mut sums = [0; abi::REASONS];
        for stats in per_cpu.iter() {
            for (sum, count) in sums.iter_mut().zip(stats.count) {
                *sum += count;
            }
        }
        Ok(sums)
    }
}
