//! The policies of the last generations: a verdict is put on record some time after it was reached, and by then another
//! policy may be in force.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lattice_policy::{Policy, Reason, RuleId, builtin};

/// How many are kept. The recorder lags behind by a second at most, unless the ring is full.
const KEPT: usize = 8;

/// Shared by the recorder and whoever changes the policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Generations(Arc<Mutex<VecDeque<Arc<Policy>>>>);

impl Generations {
    /// Call it before the enforcer gets the policy, so that no verdict names an unknown one.
    pub(crate) fn add(&self, policy: Arc<Policy>) {
        let mut kept = self.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(policy);
    }

    /// Forgets the newest: the enforcer did not take it.
    pub(crate) fn forget_newest(&self) {
        self.lock().pop_back();
    }

    /// The text of a rule that decided in `generation`.
    pub(crate) fn rule_text(&self, generation: u32, rule: RuleId) -> Option<String> {
        if let Some(rule) = builtin::rule(rule) {
            return Some(rule.text.clone());
        }
        let kept = self.lock();
        let policy = kept.iter().rev().find(|policy| policy.generation == generation)?;
        policy.rule(rule).map(|rule| rule.text.clone())
    }

    /// Why a verdict of `generation` was reached, of which the enforcer says that it was for `reason` and by `rule`.
    pub(crate) fn reason(&self, generation: u32, reason: Reason, rule: RuleId) -> Reason {
        let kept = self.lock();
        let policy = kept.iter().rev().find(|policy| policy.generation == generation);
        policy.map_or(reason, |policy| policy.reason(reason, rule))
    }

    /// The text of a rule of the newest policy.
    pub(crate) fn newest(&self, rule: RuleId) -> Option<String> {
        self.rule_text(self.generation(), rule)
    }

    /// The newest; 0 before there is one.
    pub(crate) fn generation(&self) -> u32 {
        self.lock().back().map_or(0, |policy| policy.generation)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Policy>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use lattice_policy::{Action, parse_rule};

    use super::*;

    #[test]
    fn a_rule_is_named_by_the_generation_that_decided() {
        let generations = Generations::default();
        for generation in 1..=10 {
            let rule = parse_rule(&format!("10.0.0.{generation}")).unwrap();
            generations.add(Policy::new(generation).egress(Action::Allow, rule).into());
        }
        generations.forget_newest();
        let text = |generation| generations.rule_text(generation, RuleId(1));
        assert_eq!(text(9).unwrap(), "10.0.0.9");
        assert_eq!(text(3).unwrap(), "10.0.0.3");
        assert_eq!(generations.newest(RuleId(1)), text(9));
        assert_eq!(text(2), None, "too old");
        assert_eq!(text(10), None, "never in force");
        assert_eq!(generations.rule_text(9, RuleId::NONE), None);
        assert!(generations.rule_text(2, builtin::FIRST).unwrap().starts_with("built-in"));
    }
}
