//! The proof that phase one is complete.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, Weak},
};

use crate::{
    Failure, Kind,
    enforce::{self, Enforce, Shared},
};

/// Says that a policed network namespace stands and its policy is live. Phase two takes one by reference, and only phase one can make one:
/// no code path can start an agent without a live policy.
#[derive(Debug)]
pub struct Ready {
    netns: PathBuf,
    calls: Option<Calls>,
}

/// The second fence, which takes the agent's cgroup, and so phase two.
struct Calls {
    /// Phase one owns it, and may end before this.
    enforcer: Weak<Mutex<dyn Enforce>>,
    tell: Box<dyn Fn(&str) + Send + Sync>,
    words: OnceLock<String>,
}

impl Ready {
    /// Where the agent's network namespace can be opened, as long as phase one stands.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Has the policy judge the calls of a cgroup (its directory in a version 2 hierarchy) and of all below it: what it
    /// denies then fails at once with `EPERM`. Do it before anything runs there.
    ///
    /// # Errors
    /// When the enforcer or the kernel has no hooks for calls.
    pub fn police_calls(&self, cgroup: &Path) -> Result<(), Failure> {
        let over = || Failure::new(Kind::Internal, "there is no enforcer");
        let calls = self.calls.as_ref().ok_or_else(over)?;
        let enforcer = calls.enforcer.upgrade().ok_or_else(over)?;
        let words = enforce::lock(&enforcer).police_calls(cgroup)?;
        let _ = calls.words.set(words);
        Ok(())
    }

    /// Has status and reports name the policed calls: the agent runs in that cgroup.
    pub fn tell_calls_policed(&self) {
        if let Some(calls) = &self.calls
            && let Some(words) = calls.words.get()
        {
            (calls.tell)(words);
        }
    }

    /// `tell` is told what enforces the policy, once calls are judged too.
    pub(crate) fn new(
        netns: PathBuf,
        enforcer: &Shared,
        tell: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let enforcer = std::sync::Arc::downgrade(enforcer);
        let calls = Calls { enforcer, tell: Box::new(tell), words: OnceLock::new() };
        Self { netns, calls: Some(calls) }
    }

    /// For tests of phase two alone: nothing stands behind it.
    #[cfg(feature = "test-ready")]
    #[doc(hidden)]
    pub fn for_tests(netns: PathBuf) -> Self {
        Self { netns, calls: None }
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("words", &self.words).finish_non_exhaustive()
    }
}
