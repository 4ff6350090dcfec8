//! The proof that phase one is complete.

use std::path::{Path, PathBuf};

/// Says that a policed network namespace stands and its policy is live. Phase two takes one by reference, and only phase one can make one:
/// no code path can start an agent without a live policy.
#[derive(Debug)]
pub struct Ready {
    netns: PathBuf,
}

impl Ready {
    /// Where the agent's network namespace can be opened, as long as phase one stands.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    pub(crate) fn new(netns: PathBuf) -> Self {
        Self { netns }
    }

    /// For tests of phase two alone: nothing stands behind it.
    #[cfg(feature = "test-ready")]
    #[doc(hidden)]
    pub fn for_tests(netns: PathBuf) -> Self {
        Self { netns }
    }
}
