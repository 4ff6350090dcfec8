//! What two allow rules both allow.

use std::{collections::HashSet, sync::Arc};

use ipnet::IpNet;

use super::{MAX_PAIRS, MAX_RULES, NarrowError};
use crate::{PortRange, Proto, RuleSpec, builtin};

/// An allow rule on its way into the effective policy.
#[derive(Debug, Clone)]
pub(super) struct Term {
    /// Its place among the rules that it goes back to, so that the result keeps their order.
    pub(super) order: usize,
    pub(super) spec: RuleSpec,
    /// The policies and layers that it goes back to.
    pub(super) from: Vec<Arc<str>>,
}

/// What a rule of `left` and a rule of `right` both allow, in the order of `left`.
pub(super) fn intersect(left: &[Term], right: &[Term]) -> Result<Vec<Term>, NarrowError> {
    let sides = [left, right].into_iter().enumerate();
    let mut all: Vec<(IpNet, usize, &Term)> =
        sides.flat_map(|(side, terms)| terms.iter().map(move |term| (term.spec.net(), side, term))).collect();
    all.sort_by_key(|(net, side, _)| (*net, *side));

    let mut found = Vec::new();
    let mut known = HashSet::new();
    let mut pairs = 0;
    // Of either side, the rules whose networks contain the one at hand.
    let mut covering: [Vec<(IpNet, &Term)>; 2] = [Vec::new(), Vec::new()];
    for (net, side, term) in all {
        for covering in &mut covering {
            while covering.last().is_some_and(|(wide, _)| !wide.contains(&net)) {
                covering.pop();
            }
        }
        for (_, wide) in &covering[1 - side] {
            pairs += 1;
            if pairs > MAX_PAIRS {
                return Err(NarrowError::Pairs);
            }
            let pair = if side == 0 { [term, wide] } else { [wide, term] };
            let Some(both) = meet(pair) else { continue };
            if !known.insert((both.spec.net(), both.spec.proto, both.spec.ports.clone())) {
                continue;
            }
            if found.len() == MAX_RULES {
                return Err(NarrowError::Rules);
            }
            found.push(both);
        }
        covering[side].push((net, term));
    }
    found.sort_by_key(|term| term.order);
    Ok(found)
}

/// `None` when no packet fits both. One of the networks contains the other.
fn meet([left, right]: [&Term; 2]) -> Option<Term> {
    let (a, b) = (&left.spec, &right.spec);
    let net = if a.net().prefix_len() >= b.net().prefix_len() { a.net() } else { b.net() };
    // A guarded address is open to those who name it, and so only if all name it.
    if a.net() != b.net() && builtin::is_exact(&net) && builtin::is_guarded(&net) {
        return None;
    }
    let proto = match (a.proto, b.proto) {
        (Proto::Any, other) | (other, Proto::Any) => other,
        (one, other) if one == other => one,
        _ => return None,
    };
    let ports = match (a.ports.as_slice(), b.ports.as_slice()) {
        ([], ports) | (ports, []) => ports.to_vec(),
        (one, other) => Some(common(one, other)).filter(|ports| !ports.is_empty())?,
    };
    // Rules with ports are for TCP and UDP.
    if proto == Proto::Icmp && !ports.is_empty() {
        return None;
    }
    let same = |spec: &&RuleSpec| spec.net() == net && spec.proto == proto && spec.ports == ports;
    let spec = [b, a].into_iter().find(same).cloned().unwrap_or_else(|| RuleSpec::new(proto, net, ports));
    let mut from = left.from.clone();
    from.extend(right.from.iter().filter(|source| !left.from.contains(source)).cloned());
    Some(Term { order: left.order, spec, from })
}

/// The ports that both lists name. Both are sorted and disjoint.
fn common(one: &[PortRange], other: &[PortRange]) -> Vec<PortRange> {
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    while let (Some(a), Some(b)) = (one.get(i), other.get(j)) {
        let (lo, hi) = (a.lo.max(b.lo), a.hi.min(b.hi));
        if lo <= hi {
            found.push(PortRange { lo, hi });
        }
        if a.hi <= b.hi { i += 1 } else { j += 1 }
    }
    found
}

/// Whether a rule fits every packet of its address family.
pub(super) fn is_open(spec: &RuleSpec) -> bool {
    spec.proto == Proto::Any && spec.ports.is_empty() && spec.net().prefix_len() == 0
}
