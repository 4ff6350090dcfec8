//! Counters of rules, as `nft` tells them.

use std::collections::BTreeMap;

use lattice_policy::{Counter, RuleId};
use serde_json::Value;

/// Adds what one map tells: its values are rules, its elements count. `None` when the JSON has another shape.
pub(crate) fn add(sums: &mut BTreeMap<RuleId, Counter>, json: &[u8]) -> Option<()> {
    let told: Value = serde_json::from_slice(json).ok()?;
    let map = told.get("nftables")?.as_array()?.iter().find_map(|item| item.get("map"))?;
    let Some(elements) = map.get("elem") else { return Some(()) };
    for element in elements.as_array()? {
        let rule = u32::try_from(element.get(1)?.as_u64()?).ok()?;
        let counter = element.get(0)?.get("elem")?.get("counter")?;
        let sum = sums.entry(RuleId(rule)).or_default();
        sum.packets = sum.packets.saturating_add(counter.get("packets")?.as_u64()?);
        sum.bytes = sum.bytes.saturating_add(counter.get("bytes")?.as_u64()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_a_rule_are_added_up() {
        let json =
            br#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"map": {"name": "allow_1", "elem": [
            [{"elem": {"val": 100, "counter": {"packets": 2, "bytes": 80}}}, 7],
            [{"elem": {"val": 101, "counter": {"packets": 1, "bytes": 60}}}, 7],
            [{"elem": {"val": 102, "counter": {"packets": 0, "bytes": 0}}}, 8]]}}]}"#;
        let mut sums = BTreeMap::new();
        add(&mut sums, json).unwrap();
        let expected = [(7, 3, 140), (8, 0, 0)];
        let expected = expected.map(|(rule, packets, bytes)| (RuleId(rule), Counter { packets, bytes }));
        assert!(sums.into_iter().eq(expected));
    }

    #[test]
    fn an_empty_map_counts_nothing_and_garbage_is_told() {
        let mut sums = BTreeMap::new();
        assert_eq!(add(&mut sums, br#"{"nftables": [{"map": {"name": "deny_1"}}]}"#), Some(()));
        assert_eq!(add(&mut sums, b"{}"), None);
        assert_eq!(add(&mut sums, br#"{"nftables": [{"map": {"elem": [[{"elem": 1}, 7]]}}]}"#), None);
        assert!(sums.is_empty());
    }
}
