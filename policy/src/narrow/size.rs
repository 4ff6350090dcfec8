//! How big a policy gets when it is flattened.

use ipnet::IpNet;

use super::{MAX_LINES, MAX_RULES, NarrowError};
use crate::{Direction, Policy, Rule};

/// Refuses a policy that would cost an enforcer too much. Counts what [`Policy::compile`] may write, without writing it.
pub(super) fn check(policy: &Policy) -> Result<(), NarrowError> {
    if policy.rules().len() > MAX_RULES {
        return Err(NarrowError::Rules);
    }
    let lines = [Direction::Egress, Direction::Ingress].map(|direction| {
        let rules = policy.rules().iter().filter(|rule| rule.direction == direction && rule.name.is_none());
        lines(rules.collect())
    });
    if lines[0] + lines[1] > MAX_LINES { Err(NarrowError::Lines) } else { Ok(()) }
}

fn lines(mut rules: Vec<&Rule>) -> usize {
    rules.sort_by_key(|rule| rule.net);
    let mut covering: Vec<(IpNet, usize)> = Vec::new();
    let mut total = 0;
    for own in rules.chunk_by(|a, b| a.net == b.net) {
        let net = own[0].net;
        while covering.last().is_some_and(|(wide, _)| !wide.contains(&net)) {
            covering.pop();
        }
        let inherited = covering.last().map_or(0, |(_, lines)| *lines);
        let lines = inherited + own.iter().map(|rule| rule.ports.len().max(1)).sum::<usize>();
        total += lines;
        covering.push((net, lines));
    }
    total
}
