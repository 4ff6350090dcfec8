//! What two allow rules both allow.

use std::{collections::HashSet, sync::Arc};

use ipnet::IpNet;

use super::{MAX_PAIRS, MAX_RULES, NarrowError};
use crate::{Overlay, PortRange, Proto, RuleSpec, Target, builtin, grammar::Scope, names};

/// An allow rule on its way into the effective policy.
#[derive(Debug, Clone)]
pub(super) struct Term {
    /// Its place among the rules that it goes back to, so that the result keeps their order.
    pub(super) order: usize,
    pub(super) scope: Scope,
    pub(super) proto: Proto,
    pub(super) ports: Vec<PortRange>,
    /// For people.
    pub(super) text: String,
    /// The policies and layers that it goes back to.
    pub(super) from: Vec<Arc<str>>,
}

/// What a rule of `left` and a rule of `right` both allow, in the order of `left`. No name opens anything in `overlay`.
pub(super) fn intersect(left: &[Term], right: &[Term], overlay: &Overlay) -> Result<Vec<Term>, NarrowError> {
    let sides = [left, right].into_iter().enumerate();
    let mut all: Vec<(IpNet, usize, &Term)> =
        sides.flat_map(|(side, terms)| terms.iter().map(move |term| (term.scope.net, side, term))).collect();
    all.sort_by_key(|(net, side, _)| (*net, *side));

    let mut found = Vec::new();
    let mut known = HashSet::new();
    let mut pairs = 0;
    // Of either side, the rules whose networks contain the one at hand: those by address, those by name.
    let mut covering: [[Vec<(IpNet, &Term)>; 2]; 2] = Default::default();
    for (net, side, term) in all {
        for covering in covering.as_flattened_mut() {
            while covering.last().is_some_and(|(wide, _)| !wide.contains(&net)) {
                covering.pop();
            }
        }
        let [by_address, by_name] = &covering[1 - side];
        // Most rules are for peers, which no name opens: they need not be held against all the names there are.
        let is_closed = term.scope.name.is_none() && (overlay.contains(&net) || names::is_closed_net(&net));
        let by_name = if is_closed { &[][..] } else { by_name };
        for (_, wide) in by_address.iter().chain(by_name) {
            pairs += 1;
            if pairs > MAX_PAIRS {
                return Err(NarrowError::Pairs);
            }
            let pair = if side == 0 { [term, wide] } else { [wide, term] };
            let Some(both) = meet(pair) else { continue };
            if !known.insert((both.scope.clone(), both.proto, both.ports.clone())) {
                continue;
            }
            if found.len() == MAX_RULES {
                return Err(NarrowError::Rules);
            }
            found.push(both);
        }
        covering[side][usize::from(term.scope.name.is_some())].push((net, term));
    }
    found.sort_by_key(|term| term.order);
    Ok(found)
}

/// `None` when no packet fits both. One of the networks contains the other.
fn meet([a, b]: [&Term; 2]) -> Option<Term> {
    let name = match (&a.scope.name, &b.scope.name) {
        (Some(one), Some(other)) => Some(one.common(other)?),
        (one, other) => one.as_ref().or(other.as_ref()),
    };
    let (one, other) = (a.scope.net, b.scope.net);
    let net = if one.prefix_len() >= other.prefix_len() { one } else { other };
    // A guarded address is open to those who name it, and so only if all name it.
    if one != other && builtin::is_exact(&net) && builtin::is_guarded(&net) {
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
    let scope = Scope { name: name.cloned(), net };
    let same = |term: &&&Term| term.scope == scope && term.proto == proto && term.ports == ports;
    let text = [b, a].iter().find(same).map_or_else(|| text(&scope, proto, &ports), |term| term.text.clone());
    let mut from = a.from.clone();
    from.extend(b.from.iter().filter(|source| !a.from.contains(source)).cloned());
    Some(Term { order: a.order, scope, proto, ports, text, from })
}

/// A rule of these parts, as a person would write it: `tcp:api.example.com:443 in 198.41.128.0/17`.
fn text(scope: &Scope, proto: Proto, ports: &[PortRange]) -> String {
    let target = scope.name.clone().map_or(Target::Net(scope.net), Target::Name);
    let limit = scope.name.as_ref().filter(|_| scope.net.prefix_len() > 0).map(|_| scope.net);
    let rule = RuleSpec::new(proto, target, ports.to_vec()).text;
    limit.map_or(rule.clone(), |net| format!("{rule} in {net}"))
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
    let everywhere = matches!(&spec.target, Target::Net(net) if net.prefix_len() == 0);
    spec.proto == Proto::Any && spec.ports.is_empty() && everywhere
}
