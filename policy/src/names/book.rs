//! Which addresses the names of the agent's questions have at the moment. The policy may change while they hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Names, Refused, lines};
use crate::{Pin, RuleId, pattern::canonical};

/// Most addresses of one name that hold at a time.
pub const MAX_PER_NAME: usize = 128;

/// Most names of one address: an agent that may ask for a wildcard can give one address as many as it likes.
pub const MAX_PER_ADDRESS: usize = 128;

/// What the resolver has learned: pairs of a name and an address, each with its end. At most [`Pin::MAX`] pairs; where there would
/// be more, those that end soonest go.
#[derive(Debug, Clone, Default)]
pub struct PinBook {
    /// The ends of the names of an address.
    live: BTreeMap<IpAddr, BTreeMap<Arc<str>, u64>>,
    /// The same pairs by name.
    addresses: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    /// The same pairs, the first to end first.
    ends: BTreeSet<(u64, IpAddr, Arc<str>)>,
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Learned {
    /// To be given to the enforcer before the agent is told the address; each replaces what is pinned at its address. One without
    /// lines, with the end 0, takes a pin away. Empty when address rules decide about the answer, and when the pair holds as long
    /// already.
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
        let name: Arc<str> = canonical(name).map_err(|_| Refused::Unknown)?.into();
        if self.end(&name, address) >= until_ns {
            return Ok(Learned::default());
        }
        self.remove(&name, address);
        self.insert(&name, address, until_ns);
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
        let mut changed = BTreeSet::new();
        while let Some((_, address, name)) = self.ends.first().filter(|(end, ..)| *end <= now_ns).cloned() {
            self.remove(&name, address);
            changed.insert(address);
        }
        changed.retain(|address| self.live.contains_key(address));
        changed.into_iter().map(|address| self.merged(names, address).0).collect()
    }

    /// When the first pair ends.
    pub fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(end, ..)| *end)
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

    /// Keeps the bounds, but also the pair just learned. The addresses that lost a name.
    fn make_room(&mut self, name: &Arc<str>, address: IpAddr) -> BTreeSet<IpAddr> {
        let mut gone = BTreeSet::new();
        let mut remove = |book: &mut Self, pair: Option<(Arc<str>, IpAddr)>| {
            if let Some((name, address)) = pair {
                book.remove(&name, address);
                gone.insert(address);
            }
        };
        if let Some(addresses) = self.addresses.get(name).filter(|all| all.len() > MAX_PER_NAME) {
            let others = addresses.iter().filter(|other| **other != address);
            let soonest =
                others.min_by_key(|other| self.end(name, **other)).map(|other| (name.clone(), *other));
            remove(self, soonest);
        }
        if let Some(names) = self.live.get(&address).filter(|all| all.len() > MAX_PER_ADDRESS) {
            let others = names.iter().filter(|(other, _)| *other != name);
            let soonest = others.min_by_key(|(_, end)| **end).map(|(other, _)| (other.clone(), address));
            remove(self, soonest);
        }
        if self.ends.len() > Pin::MAX {
            let others = self.ends.iter().filter(|(_, at, other)| *at != address || other != name);
            let soonest = others.map(|(_, at, other)| (other.clone(), *at)).next();
            remove(self, soonest);
        }
        gone
    }

    /// When a pair ends; 0 when there is none.
    fn end(&self, name: &str, address: IpAddr) -> u64 {
        self.live.get(&address).and_then(|names| names.get(name)).copied().unwrap_or(0)
    }

    fn insert(&mut self, name: &Arc<str>, address: IpAddr, end: u64) {
        self.live.entry(address).or_default().insert(name.clone(), end);
        self.addresses.entry(name.clone()).or_default().insert(address);
        self.ends.insert((end, address, name.clone()));
    }

    fn remove(&mut self, name: &Arc<str>, address: IpAddr) {
        let Some(names) = self.live.get_mut(&address) else { return };
        let Some(end) = names.remove(name) else { return };
        if names.is_empty() {
            self.live.remove(&address);
        }
        if let Some(addresses) = self.addresses.get_mut(name) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.addresses.remove(name);
            }
        }
        self.ends.remove(&(end, address, name.clone()));
    }
}

#[cfg(test)]
mod tests;
