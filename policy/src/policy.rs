//! A policy: numbered rules and the generation they belong to.

use std::ops::Range;

use crate::{Action, Direction, Reason, Rule, RuleId, RuleSpec, Table, builtin, compile, grammar::Scope};

/// What one sandbox may do. Without rules it may do nothing.
///
/// A rule by name is two, one for each address family, of the same text; so is one for IPv4 addresses of the overlay, where it is known:
/// see [`crate::overlay`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Grows with every change, so that an enforcer can tell which policy decided about a flow.
    pub generation: u32,
    rules: Vec<Rule>,
    /// The ids of those rules that say where the host's way out leads nobody.
    unreachable: Range<u32>,
}

impl Policy {
    /// A policy without rules: everything is denied.
    pub fn new(generation: u32) -> Self {
        Self { generation, rules: Vec::new(), unreachable: 0..0 }
    }

    /// Adds a rule for flows that the agent opens.
    #[must_use]
    pub fn egress(self, action: Action, spec: RuleSpec) -> Self {
        self.add(Direction::Egress, action, spec)
    }

    /// Adds a rule for flows that somebody else opens to the agent. One by name fits nothing: who reads rules refuses it.
    #[must_use]
    pub fn ingress(self, action: Action, spec: RuleSpec) -> Self {
        self.add(Direction::Ingress, action, spec)
    }

    /// The rules in the order of their ids, which count from 1. Those of [`builtin`] are not among them.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule that a verdict names, be it built in; `None` for [`RuleId::NONE`] and ids of other policies.
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        if let Some(rule) = builtin::rule(id) {
            return Some(rule);
        }
        let index = usize::try_from(id.0.checked_sub(1)?).ok()?;
        self.rules.get(index)
    }

    /// Why a verdict was reached, of which an enforcer says that it was for `reason` and by the rule `id`.
    pub fn reason(&self, reason: Reason, id: RuleId) -> Reason {
        if reason == Reason::RuleDeny && self.unreachable.contains(&id.0) { Reason::Uplink } else { reason }
    }

    /// The flat form for enforcers. Takes time and space in proportion to the result, apart from one sort.
    pub fn compile(&self) -> Table {
        compile::compile(self)
    }

    fn add(mut self, direction: Direction, action: Action, spec: RuleSpec) -> Self {
        self.push_scopes(direction, action, &spec, spec.scopes());
        self
    }

    /// Adds `spec` as one rule for each of `scopes`.
    pub(crate) fn push_scopes(
        &mut self,
        direction: Direction,
        action: Action,
        spec: &RuleSpec,
        scopes: Vec<Scope>,
    ) {
        for Scope { name, net } in scopes {
            let RuleSpec { text, proto, ports, .. } = spec.clone();
            self.push(Rule { id: RuleId::NONE, text, direction, action, proto, net, name, ports });
        }
    }

    /// Adds rules that deny flows because the host's way out leads there for nobody. Call it once.
    pub(crate) fn close(&mut self, rules: Vec<Rule>) {
        let next = |rules: &[Rule]| u32::try_from(rules.len()).unwrap_or(u32::MAX).saturating_add(1);
        let first = next(&self.rules);
        rules.into_iter().for_each(|rule| self.push(rule));
        self.unreachable = first..next(&self.rules);
    }

    /// Takes back what [`Policy::close`] added.
    pub(crate) fn reopen(&mut self) {
        self.rules.truncate(self.rules.len() - self.unreachable.len());
        self.unreachable = 0..0;
    }

    /// Whether it denies itself what the host's way out leads nobody to.
    pub fn is_closed(&self) -> bool {
        !self.unreachable.is_empty()
    }

    /// Adds a rule, which gets its id here.
    pub(crate) fn push(&mut self, rule: Rule) {
        let id = RuleId(u32::try_from(self.rules.len()).unwrap_or(u32::MAX).saturating_add(1));
        self.rules.push(Rule { id, ..rule });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_rule;

    #[test]
    fn ids_count_from_one_over_both_directions() {
        let spec = |text| parse_rule(text).unwrap();
        let policy = Policy::new(7)
            .egress(Action::Allow, spec("10.0.0.0/8"))
            .ingress(Action::Deny, spec("10.0.0.1"))
            .egress(Action::Deny, spec("10.0.0.2:80"));
        let ids: Vec<u32> = policy.rules().iter().map(|rule| rule.id.0).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(policy.rule(RuleId(3)).unwrap().text, "10.0.0.2:80");
        assert_eq!(policy.rule(RuleId::NONE), None);
        assert_eq!(policy.rule(RuleId(4)), None);
        for rule in builtin::rules() {
            assert_eq!(policy.rule(rule.id), Some(rule));
        }
    }
}
