//! What becomes of a flow to a name, whose addresses are known only when the agent asks for it.

use std::borrow::Borrow;

use ipnet::IpNet;

use super::{Opinion, of_flags, source};
use crate::{
    Action, Direction, Layer, NamePattern, Names, Overlay, Policy, Proto, Reason, Refused, Rule, RuleSpec,
    effective, names,
};

/// A flow that the agent opens to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFlow {
    /// The name; no wildcard.
    pub name: NamePattern,
    /// Not [`Proto::Any`].
    pub proto: Proto,
    /// `None` for ICMP.
    pub port: Option<u16>,
}

/// What layers and flags say of a flow to a public address that the name is resolved to, and at last what the sandbox's
/// resolver makes of it: whether the name may be resolved, and by which rule of the effective policy its addresses are pinned.
///
/// A layer allows the flow by a rule by that name, or by one for addresses; then only those addresses can be pinned.
pub fn explain_name<L: Borrow<Layer>>(
    layers: &[L],
    flags: &[RuleSpec],
    overlay: &Overlay,
    flow: &NamedFlow,
) -> Vec<Opinion> {
    let own = of_flags(flags);
    let all = layers.iter().map(Borrow::borrow).chain([&own]);
    let mut opinions: Vec<Opinion> = all.map(|layer| opinion(layer, overlay, flow)).collect();
    opinions.push(resolver(layers, flags, overlay, flow));
    opinions
}

fn opinion(layer: &Layer, overlay: &Overlay, flow: &NamedFlow) -> Opinion {
    let policy = layer.policy(1, overlay);
    let rules = policy.rules().iter().filter(|rule| rule.direction == Direction::Egress);
    let means = |rule: &Rule| rule.name.as_ref().map(|name| name.covers(&flow.name));
    let mut denies = rules.clone().filter(|rule| rule.action == Action::Deny);
    let mut allows = rules.filter(|rule| {
        let target = means(rule).unwrap_or_else(|| !names::is_closed_net(&rule.net));
        rule.action == Action::Allow && target && flow.fits(rule)
    });
    let by_name = denies.find(|rule| means(rule) == Some(true));
    let by_address = |allow: &Rule| flow.denied(&policy, &allow.net);
    let decides = by_name.or_else(|| {
        let first = allows.clone().next()?;
        allows.find(|rule| by_address(rule).is_none()).or_else(|| by_address(first))
    });
    let (action, reason) = match decides.map(|rule| rule.action) {
        Some(Action::Allow) => (Action::Allow, Reason::RuleAllow),
        Some(Action::Deny) => (Action::Deny, Reason::RuleDeny),
        None => (Action::Deny, Reason::DefaultDeny),
    };
    Opinion {
        layer: layer.name.clone(),
        action,
        reason,
        rule: decides.map(|rule| rule.text.clone()),
        policy: decides.and_then(|rule| source(layer, overlay, rule.id)).and_then(|rule| rule.policy.clone()),
    }
}

fn resolver<L: Borrow<Layer>>(
    layers: &[L],
    flags: &[RuleSpec],
    overlay: &Overlay,
    flow: &NamedFlow,
) -> Opinion {
    let says = |action, reason, rule: Option<String>| Opinion {
        layer: "resolver".into(),
        action,
        reason,
        rule,
        policy: None,
    };
    let Ok(policy) = effective(1, layers, flags, overlay) else {
        return says(Action::Deny, Reason::NoPolicy, None);
    };
    let text = |id| policy.rule(id).map(|rule| rule.text.clone());
    let is_open = |rule: &Rule| flow.fits(rule) && flow.denied(&policy, &rule.net).is_none();
    match Names::new(&policy, &overlay.nets()).permits(flow.name.name(), is_open) {
        Ok(id) => says(Action::Allow, Reason::RuleAllow, text(id)),
        Err(Refused::Denied(id)) => says(Action::Deny, Reason::Name, text(id)),
        Err(_) => says(Action::Deny, Reason::Name, None),
    }
}

impl NamedFlow {
    /// The deny rule by address that leaves nothing of `net` to this flow.
    fn denied<'a>(&self, policy: &'a Policy, net: &IpNet) -> Option<&'a Rule> {
        policy.rules().iter().find(|rule| {
            let by_address = rule.direction == Direction::Egress && rule.name.is_none();
            by_address && rule.action == Action::Deny && rule.net.contains(net) && self.fits(rule)
        })
    }

    /// Whether a rule is for its protocol and port.
    fn fits(&self, rule: &Rule) -> bool {
        let ports = match self.port {
            _ if rule.ports.is_empty() => true,
            Some(port) => self.proto != Proto::Icmp && rule.ports.iter().any(|range| range.contains(port)),
            None => false,
        };
        ports && (rule.proto == Proto::Any || rule.proto == self.proto)
    }
}

#[cfg(test)]
mod tests;
