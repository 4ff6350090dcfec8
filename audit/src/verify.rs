//! Following the hash chain of an audit file from its first line to its last.

use std::path::Path;

use lattice_policy::Action;

use crate::{Entry, VerifyError, chain::Chain, read};

/// What an unbroken audit file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Flow records.
    pub records: u64,
    /// How often the file was opened to write.
    pub epochs: u64,
    /// Gap records.
    pub gaps: u64,
    /// Records that the gaps say are missing.
    pub lost: u64,
    /// Flow records that say allow.
    pub allowed: u64,
    /// Flow records that say deny.
    pub denied: u64,
}

/// Checks every line of the audit file at `path`. An empty file is unbroken.
///
/// # Errors
/// At the first line that does not follow from the line above.
pub fn verify(path: &Path) -> Result<Summary, VerifyError> {
    let mut entries = read(path)?;
    let mut chain = Chain::START;
    let mut summary = Summary::default();
    loop {
        let epoch = chain.epoch();
        let next = entries.next_with(|link, line| {
            chain.check(link)?;
            chain.advance(link, line);
            Ok(())
        });
        let Some(entry) = next.transpose()? else { break };
        summary.epochs += u64::from(chain.epoch() != epoch);
        match entry {
            Entry::Gap(gap) => {
                summary.gaps += 1;
                summary.lost = summary.lost.saturating_add(gap.lost);
            }
            Entry::Flow(flow) => {
                summary.records += 1;
                match flow.action {
                    Action::Allow => summary.allowed += 1,
                    Action::Deny => summary.denied += 1,
                }
            }
        }
    }
    entries.end()?;
    Ok(summary)
}
