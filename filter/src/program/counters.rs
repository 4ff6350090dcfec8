//! Counters by rule, found without a search: each line of the policy knows its own.

use std::collections::HashMap;

use lattice_policy::{Counter, Match, RuleId};

use super::Line;

#[derive(Debug)]
pub(crate) struct Counters {
    index: HashMap<RuleId, u32>,
    counts: Vec<(RuleId, Counter)>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            index: HashMap::from([(RuleId::NONE, Self::NONE)]),
            counts: vec![(RuleId::NONE, Counter::default())],
        }
    }
}

impl Counters {
    /// The counter of what no rule names.
    pub(crate) const NONE: u32 = 0;

    /// What a line says, with the counter of its rule.
    pub(super) fn line(&mut self, line: &Match) -> Line {
        let counter = *self.index.entry(line.rule).or_insert_with(|| {
            self.counts.push((line.rule, Counter::default()));
            (self.counts.len() - 1) as u32
        });
        Line { action: line.action, rule: line.rule, counter }
    }

    pub(crate) fn add(&mut self, counter: u32, packets: usize, bytes: usize) {
        if let Some((_, count)) = self.counts.get_mut(counter as usize) {
            count.packets += packets as u64;
            count.bytes += bytes as u64;
        }
    }

    pub(super) fn list(&self) -> Vec<(RuleId, Counter)> {
        let used = self.counts.iter().filter(|(_, count)| count.packets > 0);
        let mut list: Vec<_> = used.copied().collect();
        list.sort_unstable_by_key(|(rule, _)| *rule);
        list
    }
}
