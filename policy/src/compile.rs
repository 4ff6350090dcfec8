//! Flattening: from rules that may cover each other to prefixes of which the longest alone decides.
//!
//! Sorted by address and length, every prefix comes after all that cover it and before anything outside it. One
//! sweep with a stack of the covering prefixes therefore gives each prefix what its parent already gathered, plus
//! its own rules. Rules by name are not among them: they have addresses only as long as the resolver has pinned some.

pub(crate) mod decided;

use ipnet::IpNet;

use crate::{Action, Direction, Entry, Match, Policy, Rule, Table, builtin};
use decided::Decided;

/// See [`Policy::compile`].
pub(crate) fn compile(policy: &Policy) -> Table {
    Table { egress: flatten(policy, Direction::Egress), ingress: flatten(policy, Direction::Ingress) }
}

fn flatten(policy: &Policy, direction: Direction) -> Vec<Entry> {
    let all = policy.rules().iter().chain(builtin::rules());
    let mut rules: Vec<&Rule> =
        all.filter(|rule| rule.direction == direction && rule.name.is_none()).collect();
    rules.sort_by_key(|rule| (rule.net, rule.id));

    let mut entries = Vec::new();
    let mut covering: Vec<Frame> = Vec::new();
    for own in rules.chunk_by(|a, b| a.net == b.net) {
        let net = own[0].net;
        while covering.last().is_some_and(|frame| !frame.net.contains(&net)) {
            covering.pop();
        }
        let parent = covering.last();
        let frame = Frame::new(net, own, parent);
        if frame.matches != parent.map_or(&[][..], |parent| &parent.matches) {
            entries.push(Entry { net, matches: frame.matches.clone() });
        }
        covering.push(frame);
    }
    entries
}

/// A prefix of the sweep with everything that is said about its addresses.
struct Frame {
    net: IpNet,
    /// Denies of the policy by id, then allows by id, then `guard`.
    matches: Vec<Match>,
    /// How many of `matches` are denies of the policy.
    denies: usize,
    /// The built-in rule that holds here. Allows before it are for this one address, not for prefixes below.
    guard: Option<Match>,
}

impl Frame {
    fn new(net: IpNet, own: &[&Rule], parent: Option<&Self>) -> Self {
        let (denies, allows) =
            parent.map_or((&[][..], &[][..]), |parent| parent.matches.split_at(parent.denies));
        let (builtin, own): (Vec<&Rule>, Vec<&Rule>) =
            own.iter().partition(|rule| builtin::rule(rule.id).is_some());
        let guard = lines(&builtin, Action::Deny)
            .chain(parent.and_then(|parent| parent.guard))
            .min_by_key(|line| line.rule);
        let allows = match guard {
            None => merge(allows, lines(&own, Action::Allow)),
            Some(_) if builtin::is_exact(&net) => lines(&own, Action::Allow).collect(),
            Some(_) => Vec::new(),
        };

        // What an earlier line decides must not be decided again: it would cost enforcers space and time for nothing.
        let mut decided = Decided::default();
        let mut matches = merge(denies, lines(&own, Action::Deny));
        matches.retain(|line| decided.add(line));
        let denies = matches.len();
        matches.extend(allows.into_iter().chain(guard).filter(|line| decided.add(line)));
        Self { net, matches, denies, guard }
    }
}

/// The rules with this action, one line for each of their port ranges.
fn lines<'a>(rules: &'a [&Rule], action: Action) -> impl Iterator<Item = Match> + 'a {
    rules.iter().filter(move |rule| rule.action == action).flat_map(|rule| lines_of(rule))
}

/// One line for each port range of a rule.
pub(crate) fn lines_of(rule: &Rule) -> impl Iterator<Item = Match> {
    let line = |ports| Match { proto: rule.proto, ports, action: rule.action, rule: rule.id };
    let every = rule.ports.is_empty().then(|| line(None));
    every.into_iter().chain(rule.ports.iter().map(move |range| line(Some(*range))))
}

/// Both lists by rule id. The sort is linear here: it finds the two runs.
fn merge(inherited: &[Match], own: impl Iterator<Item = Match>) -> Vec<Match> {
    let mut all: Vec<Match> = inherited.iter().copied().chain(own).collect();
    all.sort_by_key(|line| line.rule);
    all
}
