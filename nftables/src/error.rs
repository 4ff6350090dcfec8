//! What can go wrong between the policy and the kernel.

use std::io;

/// Every failure of this crate. Each message says what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// The kernel does not let this process.
    #[error(
        "the kernel refuses {doing} to this process: {missing} is missing; run as root, or give the process this capability"
    )]
    NotPermitted {
        /// What was tried.
        doing: &'static str,
        /// The capability.
        missing: &'static str,
    },
    /// There is no `nft`.
    #[error("the program nft is missing; install it: apt install nftables")]
    NoNft,
    /// The kernel lacks something.
    #[error(
        "this kernel cannot enforce a policy by nftables: it lacks {option} ({message}); load its module, or use a kernel that has it"
    )]
    Unsupported {
        /// The kernel's build option.
        option: &'static str,
        /// What `nft` said.
        message: String,
    },
    /// `nft` failed.
    #[error("nft failed to {doing}: {message}; what was in force before still is")]
    Nft {
        /// What was tried.
        doing: &'static str,
        /// What `nft` said.
        message: String,
    },
    /// `nft` cannot be run.
    #[error("cannot run {program} in the agent's network namespace: {source}; check that both still exist")]
    Run {
        /// Its path.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `nft` told what this crate does not understand.
    #[error("cannot read the counters that nft told: {0}; report this with the output of nft --version")]
    Counters(String),
    /// The name of the table is none.
    #[error("{0:?} is no name for a table: use letters, digits and _, at most 64, a letter first")]
    TableName(String),
    /// The name of a link would not be read as one.
    #[error("the link {0:?} cannot be named in a rule: rename it to letters, digits, -, _, @ and dots")]
    LinkName(String),
    /// The log cannot be read.
    #[error(
        "cannot {doing} the log group {group} of the agent's network namespace: {source}; no other program may read this group"
    )]
    Log {
        /// What was tried.
        doing: &'static str,
        /// The NFLOG group.
        group: u16,
        /// Why.
        source: io::Error,
    },
    /// No random number for the first flow's mark.
    #[error("the kernel gives no random numbers: {0}; check that getrandom is permitted")]
    Random(String),
    /// The events were taken before.
    #[error("the log has one reader, and it was taken already")]
    EventsTaken,
    /// No policy to pin to.
    #[error("an address cannot be pinned before a policy is applied")]
    NoPolicy,
    /// Too many pins.
    #[error("{0} addresses are too many to pin at a time; at most {max} can be", max = lattice_policy::Pin::MAX)]
    TooManyPins(usize),
    /// Every name for a rule was used.
    #[error(
        "four billion rules were applied since the enforcer was loaded, which is all it can tell apart; start the sandbox again"
    )]
    Exhausted,
}

impl NftError {
    /// Whether `nft` took so long that it was killed, so that nobody knows how far it came.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Run { source, .. } if source.kind() == io::ErrorKind::TimedOut)
    }
}
