//! Which addresses the names of the agent's questions have at the moment. The policy may change while they hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Names, Refused, lines};
use crate::{Pin, RuleId, pattern::canonical};

/// Most addresses of one name that hold at a time.
pub const MAX_PER_NAME: usize = 128;

/// What the resolver has learned: pairs of a name and an address, each with its end. At most [`Pin::MAX`] pairs; where there would
/// be more, those that end soonest go.
#[derive(Debug, Clone, Default)]
pub struct PinBook {
    /// The names of an address, by canonical name.
    live: BTreeMap<IpAddr, BTreeMap<String, u64>>,
    /// How many pairs there are.
    pairs: usize,
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Learned {
    /// To be given to the enforcer before the agent is told the address; each replaces what is pinned at its address. One without
    /// lines, with the end 0, takes a pin away. Empty when address rules decide about the answer.
    pub pins: Vec<Pin>,
    /// Rules of which something found no room among the [`Pin::MAX_LINES`] of the address: worth a warning.
    pub left_out: Vec<RuleId>,
}

impl PinBook {
    /// Takes in that `address` was answered for `name`, until `until_ns` at least.
    ///
    /// # Errors
    /// When the agent must not be told the address. Nothing changes then.
    pub fn learn(
        &mut self,
        names: &Names,
        name: &str,
        address: IpAddr,
        until_ns: u64,
    ) -> Result<Learned, Refused> {
        if names.admitting(name, address)?.is_empty() {
            return Ok(Learned::default());
        }
        let name = canonical(name).map_err(|_| Refused::Unknown)?;
        let end = self.live.entry(address).or_default().entry(name.clone()).or_insert_with(|| {
            self.pairs += 1;
            0
        });
        *end = until_ns.max(*end);
        // What goes is told first: an enforcer has room for Pin::MAX addresses.
        let mut gone = self.make_room(&name, address);
        gone.remove(&address);
        let mut pins: Vec<Pin> = gone.into_iter().map(|address| self.merged(names, address).0).collect();
        let (pin, left_out) = self.merged(names, address);
        pins.push(pin);
        Ok(Learned { pins, left_out })
    }

    /// Forgets what ends by `now_ns`, and gives the new pins of addresses that other names still have. The pin of such an
    /// address ends with the first of them: to leave no gap, call it some time before [`PinBook::next_end`], with that time
    /// added to `now_ns`.
    pub fn expire(&mut self, names: &Names, now_ns: u64) -> Vec<Pin> {
        let mut changed = Vec::new();
        self.live.retain(|address, ends| {
            let before = ends.len();
            ends.retain(|_, end| *end > now_ns);
            self.pairs -= before - ends.len();
            if !ends.is_empty() && ends.len() < before {
                changed.push(*address);
            }
            !ends.is_empty()
        });
        changed.into_iter().map(|address| self.merged(names, address).0).collect()
    }

    /// When the first pair ends.
    pub fn next_end(&self) -> Option<u64> {
        self.live.values().flat_map(BTreeMap::values).min().copied()
    }

    /// Every pin under the policy of `names`, for an enforcer that takes this policy over. Pairs that it does not permit open
    /// nothing, and are kept for a later one that does.
    pub fn pins(&self, names: &Names) -> Vec<Pin> {
        let pins = self.live.keys().map(|address| self.merged(names, *address).0);
        pins.filter(|pin| !pin.matches.is_empty()).collect()
    }

    /// What all live names of `address` open together. It ends when the first of its lines does.
    fn merged(&self, names: &Names, address: IpAddr) -> (Pin, Vec<RuleId>) {
        let mut rules = BTreeMap::new();
        for (name, end) in self.live.get(&address).into_iter().flatten() {
            for rule in names.admitting(name, address).unwrap_or_default() {
                let known = rules.entry(rule.id).or_insert((rule, *end));
                known.1 = known.1.max(*end);
            }
        }
        let (matches, left_out) = lines(rules.values().map(|(rule, _)| *rule));
        let ends = matches.iter().filter_map(|line| rules.get(&line.rule)).map(|(_, end)| *end);
        let until_ns = ends.min().unwrap_or(0);
        (Pin { address, matches, until_ns }, left_out)
    }

    /// Keeps the bounds, but the pair just learned. The addresses that lost a name.
    fn make_room(&mut self, name: &str, address: IpAddr) -> BTreeSet<IpAddr> {
        let mut gone = BTreeSet::new();
        let of_name = self.live.values().filter(|ends| ends.contains_key(name)).count();
        if of_name > MAX_PER_NAME {
            gone.extend(self.remove_soonest(|other, at| other == name && at != address));
        }
        if self.pairs > Pin::MAX {
            gone.extend(self.remove_soonest(|other, at| other != name || at != address));
        }
        gone
    }

    /// A scan of a few thousand pairs, at most twice for an answer, instead of further indices that must be kept right.
    fn remove_soonest(&mut self, may_go: impl Fn(&str, IpAddr) -> bool) -> Option<IpAddr> {
        let pairs = self.live.iter().flat_map(|(at, ends)| ends.iter().map(|(name, end)| (*end, *at, name)));
        let (_, at, name) = pairs.filter(|(_, at, name)| may_go(name, *at)).min()?;
        let name = name.clone();
        let ends = self.live.get_mut(&at)?;
        ends.remove(&name);
        self.pairs -= 1;
        if ends.is_empty() {
            self.live.remove(&at);
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests;
