//! Rules by name, as the sandbox's resolver needs them: which names it may resolve, and what their addresses open.
//!
//! The answer to a permitted name comes from strangers. It opens public addresses only, so that a name cannot be turned
//! (rebinding) against the host, its network, cloud metadata or other peers. Those are reached by rules that name their addresses; an
//! answer that the policy's address rules allow anyway may be told to the agent, and needs no pin. The exception is what a cluster's own
//! nameserver says of its services, where the host's operator names both ([`PrivateNames`]).

mod book;
mod closed;
mod private;

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use crate::{
    Action, Direction, Match, Pin, Policy, Reason, Rule, RuleId, Table,
    compile::{decided::Decided, lines_of},
    pattern::canonical,
    table::longest,
};
pub use book::{Learned, MAX_PER_ADDRESS, MAX_PER_NAME, PinBook};
pub(crate) use closed::is_closed_net;
pub use private::{PrivateNames, PrivateNamesError};

/// What a policy says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NameVerdict {
    /// It may be resolved: the first rule that allows it.
    Allowed(RuleId),
    /// It may not: the first rule that denies it, whatever others allow.
    Denied(RuleId),
    /// No rule means it, or it is no name.
    Unknown,
}

/// Why an address of a name may not be told to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The name itself may not be resolved.
    #[error("rule {} denies the name", .0.0)]
    Denied(RuleId),
    /// No rule permits the name.
    #[error("no rule permits the name")]
    Unknown,
    /// Addresses of this kind are not opened by name.
    #[error("it is a {0} address, which no name opens; allow it by its address")]
    Closed(&'static str),
    /// The rules by that name are limited to other addresses.
    #[error("it lies outside the networks to which the policies limit the name")]
    Outside,
}

/// The rules by name of one policy, with an index.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Egress rules by name, in the order of their ids.
    rules: Vec<Rule>,
    /// Places in `rules` by the name that is meant alone.
    exact: HashMap<String, Vec<usize>>,
    /// Likewise, by the name below which all are meant.
    below: HashMap<String, Vec<usize>>,
    /// Networks that no name opens here, beside those that none opens anywhere.
    closed: Vec<IpNet>,
    /// Names that open private addresses nevertheless.
    private: PrivateNames,
    /// The prefixes of the egress table, and whether an address rule allows something there.
    open: Vec<(IpNet, bool)>,
}

// === impl Refused ===

impl Refused {
    /// What goes on record.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Denied(_) | Self::Unknown => Reason::Name,
            Self::Closed(_) | Self::Outside => Reason::Answer,
        }
    }
}

// === impl Names ===

impl Names {
    /// The rules by name of `policy`. No name opens addresses in `closed`: the overlay's pool, and what else the host must
    /// keep to itself.
    pub fn new(policy: &Policy, closed: &[IpNet]) -> Self {
        let is_by_name = policy.rules().iter().any(|rule| rule.name.is_some());
        if is_by_name { Self::compiled(policy, &policy.compile(), closed) } else { Self::default() }
    }

    /// [`Self::new`] for who has compiled `policy` to `table` already.
    pub fn compiled(policy: &Policy, table: &Table, closed: &[IpNet]) -> Self {
        let by_name = |rule: &&Rule| rule.direction == Direction::Egress && rule.name.is_some();
        let rules: Vec<Rule> = policy.rules().iter().filter(by_name).cloned().collect();
        if rules.is_empty() {
            return Self::default();
        }
        let mut names = Self { closed: closed.to_vec(), ..Self::default() };
        for (place, rule) in rules.iter().enumerate() {
            let Some(pattern) = &rule.name else { continue };
            let index = if pattern.is_wildcard() { &mut names.below } else { &mut names.exact };
            index.entry(pattern.name().to_owned()).or_default().push(place);
        }
        let allows = |lines: &[Match]| lines.iter().any(|line| line.action == Action::Allow);
        names.open = table.egress.iter().map(|entry| (entry.net, allows(&entry.matches))).collect();
        Self { rules, ..names }
    }

    /// These names open these private addresses nevertheless, where a rule permits the name.
    #[must_use]
    pub fn with_private(self, private: &PrivateNames) -> Self {
        Self { private: private.clone(), ..self }
    }

    /// Whether there is no rule by name.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether `name`, which may be any text, may be resolved.
    pub fn query(&self, name: &str) -> NameVerdict {
        match self.permits(name, |_| true) {
            Ok(id) => NameVerdict::Allowed(id),
            Err(Refused::Denied(id)) => NameVerdict::Denied(id),
            Err(_) => NameVerdict::Unknown,
        }
    }

    /// What `address`, an answer to `name`, opens until `until_ns`. `None`: nothing, but address rules allow it. A
    /// [`PinBook`] puts several names of one address together.
    ///
    /// # Errors
    /// When the agent must not be told the address.
    pub fn pin(&self, name: &str, address: IpAddr, until_ns: u64) -> Result<Option<Pin>, Refused> {
        let rules = self.admitting(name, address)?;
        let (matches, _) = lines(rules);
        Ok((!matches.is_empty()).then_some(Pin { address, matches, until_ns }))
    }

    /// The first allow rule for `name` that `is_meant`.
    pub(crate) fn permits(&self, name: &str, is_meant: impl Fn(&Rule) -> bool) -> Result<RuleId, Refused> {
        let rules = canonical(name).map(|name| self.fitting(&name)).unwrap_or_default();
        match rules.iter().find(|rule| rule.action == Action::Deny) {
            Some(deny) => Err(Refused::Denied(deny.id)),
            None => rules.iter().find(|rule| is_meant(rule)).map(|rule| rule.id).ok_or(Refused::Unknown),
        }
    }

    /// The allow rules that `address` fulfils as an answer to `name`, by id; none, when address rules decide about it.
    fn admitting(&self, name: &str, address: IpAddr) -> Result<Vec<&Rule>, Refused> {
        let mut rules = canonical(name).map(|name| self.fitting(&name)).unwrap_or_default();
        if let Some(deny) = rules.iter().find(|rule| rule.action == Action::Deny) {
            return Err(Refused::Denied(deny.id));
        }
        if rules.is_empty() {
            return Err(Refused::Unknown);
        }
        let kind = match closed::kind(address) {
            _ if self.private.open(name, address) => None,
            None if self.closed.iter().any(|net| net.contains(&address)) => Some("peer's or the host's own"),
            kind => kind,
        };
        rules.retain(|rule| kind.is_none() && rule.net.contains(&address));
        match kind {
            _ if !rules.is_empty() || self.allows(address) => Ok(rules),
            Some(kind) => Err(Refused::Closed(kind)),
            None => Err(Refused::Outside),
        }
    }

    /// Whether an address rule allows something to `address`.
    fn allows(&self, address: IpAddr) -> bool {
        let entry = longest::prefix(&self.open, |(net, _)| *net, address.to_canonical());
        entry.is_some_and(|(_, allows)| *allows)
    }

    /// The rules that mean a canonical name, by id.
    fn fitting(&self, name: &str) -> Vec<&Rule> {
        let parents = name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..));
        let below = parents.filter_map(|parent| self.below.get(parent));
        let mut places: Vec<usize> =
            self.exact.get(name).into_iter().chain(below).flatten().copied().collect();
        places.sort_unstable();
        places.into_iter().filter_map(|place| self.rules.get(place)).collect()
    }
}

/// The lines of a pin for `rules`, which are sorted by id, and the rules that found no room in it.
///
/// A line that decides nothing new is left out. Where more than [`Pin::MAX_LINES`] remain, what wider lines cover is left out
/// too, and then the narrowest: the agent may do less than the policy says, never more.
fn lines<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> (Vec<Match>, Vec<RuleId>) {
    let mut lines: Vec<Match> = rules.into_iter().flat_map(lines_of).collect();
    let new = |lines: &mut Vec<Match>| {
        let mut decided = Decided::default();
        lines.retain(|line| decided.add(line));
    };
    new(&mut lines);
    if lines.len() <= Pin::MAX_LINES {
        return (lines, Vec::new());
    }
    let width = |line: &Match| {
        let ports = line.ports.map_or(u32::MAX, |range| u32::from(range.hi) - u32::from(range.lo));
        (ports, line.proto == crate::Proto::Any)
    };
    lines.sort_by_key(|line| std::cmp::Reverse(width(line)));
    new(&mut lines);
    let left_out = lines.split_off(Pin::MAX_LINES.min(lines.len()));
    lines.sort_by_key(|line| line.rule);
    let mut left_out: Vec<RuleId> = left_out.iter().map(|line| line.rule).collect();
    left_out.sort_unstable();
    left_out.dedup();
    (lines, left_out)
}

#[cfg(test)]
mod tests;
