//! The policy of a running sandbox: what the network map and the sandbox's flags allow together, changed in place when
//! a newer map says so.

use std::sync::{Arc, Mutex, PoisonError};

use lattice_ebpf::Enforcer;
use lattice_policy::{Policy, RuleSpec, effective, narrow::only_widens};
use lattice_wire::NetMap;

use crate::{Failure, Kind, failure::chain, generations::Generations, layers};

/// Puts a policy in force, as a whole or not at all.
type Load = Box<dyn FnMut(&Policy) -> Result<(), Failure> + Send>;

/// What is in force, and how to change it.
pub(crate) struct Live {
    flags: Vec<RuleSpec>,
    current: Arc<Policy>,
    generations: Generations,
    load: Load,
}

/// Another policy than the one in force.
#[derive(Debug)]
pub(crate) struct Change {
    policy: Policy,
    /// Whether it may forbid what is allowed now.
    pub(crate) narrows: bool,
}

/// A change that was not made.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) failure: Failure,
    /// Whether more is allowed than should be.
    pub(crate) too_wide: bool,
}

/// Whether the receiver's own time is over: it is no member any more until a newer map says otherwise.
pub(crate) fn is_over(map: &NetMap, now: i64) -> bool {
    map.not_after.is_some_and(|at| at <= now)
}

/// What `map` and `flags` allow together at the time `now`.
pub(crate) fn wanted(generation: u32, flags: &[RuleSpec], map: &NetMap, now: i64) -> Result<Policy, Failure> {
    if is_over(map, now) {
        return Ok(Policy::new(generation));
    }
    effective(generation, &layers::read(map.policy.as_ref()), flags, map.pool)
        .map_err(|error| Failure::new(Kind::Usage, error))
}

/// How a policy gets into the kernel.
pub(crate) fn loader(enforcer: Arc<Mutex<Enforcer>>) -> Load {
    Box::new(move |policy| {
        let table = policy.compile();
        let mut enforcer = enforcer.lock().unwrap_or_else(PoisonError::into_inner);
        enforcer
            .apply(&table, &[], policy.generation)
            .map_err(|error| Failure::new(Kind::Kernel, chain(&error)))
    })
}

impl Live {
    /// `current` is in force and known to `generations`.
    pub(crate) fn new(
        flags: Vec<RuleSpec>,
        current: Arc<Policy>,
        generations: Generations,
        load: Load,
    ) -> Self {
        Self { flags, current, generations, load }
    }

    /// What must change for `map` at the time `now`; `None` when nothing must.
    pub(crate) fn change(&self, map: &NetMap, now: i64) -> Option<Change> {
        let policy = wanted(self.next(), &self.flags, map, now).unwrap_or_else(|failure| {
            tracing::warn!(%failure, "everything is denied");
            Policy::new(self.next())
        });
        if policy.rules() == self.current.rules() {
            return None;
        }
        Some(Change { narrows: !only_widens(&self.current, &policy), policy })
    }

    /// Makes a change.
    ///
    /// # Errors
    /// When the enforcer does not take it. Then the policy in force stays, or, if the change would have forbidden
    /// something, everything is denied.
    pub(crate) fn put(&mut self, change: Change) -> Result<(), Stuck> {
        let rules = change.policy.rules().len();
        match self.load(change.policy) {
            Ok(()) => {
                tracing::info!(generation = self.current.generation, rules, "the policy has changed");
                Ok(())
            }
            Err(failure) if !change.narrows => Err(Stuck { failure, too_wide: false }),
            Err(failure) => {
                let too_wide = self.load(Policy::new(self.next())).is_err();
                tracing::warn!("a narrower policy cannot be put in force: everything is denied until it can");
                Err(Stuck { failure, too_wide })
            }
        }
    }

    fn load(&mut self, policy: Policy) -> Result<(), Failure> {
        let policy = Arc::new(policy);
        self.generations.add(policy.clone());
        match (self.load)(&policy) {
            Ok(()) => self.current = policy,
            Err(failure) => {
                self.generations.forget_newest();
                return Err(failure);
            }
        }
        Ok(())
    }

    /// 0 is "no policy" in events, also after 2³² changes.
    fn next(&self) -> u32 {
        self.current.generation.wrapping_add(1).max(1)
    }
}

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
pub(crate) mod tests;
