//! The maps `COUNTERS` and `HIGH_COUNTERS`: what each rule decided about.

use std::collections::BTreeMap;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use lattice_policy::{Counter, RuleId};

use crate::{
    EbpfError,
    abi::{self, CounterKey, CounterValue},
};

pub(crate) struct Counters {
    /// Of the rules with low numbers: a half for even epochs, a half for odd ones.
    pub(crate) low: PerCpuArray<MapData, CounterValue>,
    /// Of the others, those that decided anything.
    pub(crate) high: PerCpuHashMap<MapData, CounterKey, CounterValue>,
    /// How many of the first counters of each half may be in use: asking for one of them is a system call.
    pub(crate) used: [u32; 2],
}

impl Counters {
    /// What the rules of the policy `epoch` decided about, in the order of their ids. A rule that decided nothing is left
    /// out.
    pub(crate) fn read(&self, epoch: u32) -> Result<Vec<(RuleId, Counter)>, EbpfError> {
        let mut counters = BTreeMap::new();
        for rule in 0..self.used[half(epoch)] {
            let values = self.low.get(&index(epoch, rule), 0).map_err(EbpfError::map("read", "COUNTERS"))?;
            counters.insert(RuleId(rule), sum(&values));
        }
        let fail = || EbpfError::map("read", "HIGH_COUNTERS");
        // A key may come twice when the program adds one meanwhile.
        for key in self.high.keys() {
            let key = key.map_err(fail())?;
            if key.epoch == epoch {
                let values = self.high.get(&key, 0).map_err(fail())?;
                counters.insert(RuleId(key.rule), sum(&values));
            }
        }
        counters.retain(|_, counter| counter.packets > 0);
        Ok(counters.into_iter().collect())
    }

    /// Notes that rules up to `rule` may count for `epoch` from now on.
    pub(crate) fn expect(&mut self, epoch: u32, rule: RuleId) {
        let used = &mut self.used[half(epoch)];
        *used = rule.0.saturating_add(1).min(abi::COUNTED_RULES).max(*used);
    }

    /// Makes room for the counters of `next`, while those of `current` go on. A packet that is still being judged by the
    /// policy before that, which had this room, is counted for the next.
    pub(crate) fn reset(&mut self, current: u32, next: u32) -> Result<(), EbpfError> {
        for rule in 0..self.used[half(next)] {
            let index = index(next, rule);
            let values = self.low.get(&index, 0).map_err(EbpfError::map("read", "COUNTERS"))?;
            if sum(&values).packets > 0 {
                let zeros = vec![CounterValue { packets: 0, bytes: 0 }; values.len()];
                PerCpuValues::try_from(zeros)
                    .map_err(MapError::from)
                    .and_then(|zeros| self.low.set(index, zeros, 0))
                    .map_err(EbpfError::map("reset a counter", "COUNTERS"))?;
            }
        }
        self.used[half(next)] = 1;
        let keys: Result<Vec<CounterKey>, MapError> = self.high.keys().collect();
        for key in keys.map_err(EbpfError::map("list", "HIGH_COUNTERS"))? {
            if key.epoch != current {
                self.high.remove(&key).map_err(EbpfError::map("remove a counter", "HIGH_COUNTERS"))?;
            }
        }
        Ok(())
    }
}

const fn half(epoch: u32) -> usize {
    (epoch % 2) as usize
}

const fn index(epoch: u32, rule: u32) -> u32 {
    epoch % 2 * abi::COUNTED_RULES + rule
}

fn sum(per_cpu: &PerCpuValues<CounterValue>) -> Counter {
    per_cpu.iter().fold(Counter::default(), |sum, cpu| Counter {
        packets: sum.packets + cpu.packets,
        bytes: sum.bytes + cpu.bytes,
    })
}
