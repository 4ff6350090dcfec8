//! What each rule decided about, as people wrote it.
//!
//! A policy has a rule for each IP version where one text stands for both: a name, an address of the overlay. Here they are one again.

use std::collections::HashMap;

use ipnet::IpNet;
use lattice_policy::{Action, Direction, Rule, RuleId};
use serde::{Deserialize, Serialize};

/// One rule, of one or both IP versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// As flow records name the first of its parts.
    pub id: u32,
    /// Which way.
    pub direction: Direction,
    /// What happens.
    pub action: Action,
    /// Its text, and where it comes from.
    pub rule: String,
    /// What it decided about.
    #[serde(flatten)]
    pub count: RuleCount,
    /// The rules of the policy that it stands for, in the order of their ids: at least one.
    #[serde(default)]
    pub parts: Vec<RulePart>,
}

/// What is one rule for the enforcer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulePart {
    /// As flow records name it.
    pub id: u32,
    /// The addresses of the other end. Of a rule by name, all those that it may be answered with.
    pub net: IpNet,
    /// What it decided about.
    #[serde(flatten)]
    pub count: RuleCount,
}

/// What was decided about, since the policy is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleCount {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

impl RuleReport {
    /// `v4`, `v6` or `v4+v6`; `-` of a sandbox of an older release, which names no parts.
    pub fn versions(&self) -> &'static str {
        if self.parts.is_empty() {
            return "-";
        }
        let is_v4 = |part: &RulePart| part.net.addr().is_ipv4();
        match (self.parts.iter().any(is_v4), self.parts.iter().all(is_v4)) {
            (true, true) => "v4",
            (false, _) => "v6",
            (true, false) => "v4+v6",
        }
    }
}

/// `rules` with what `count` says of each; those of the same words are one.
pub(super) fn summed<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    count: impl Fn(RuleId) -> RuleCount,
) -> Vec<RuleReport> {
    let mut all: Vec<RuleReport> = Vec::new();
    let mut places: HashMap<(Direction, Action, &str), usize> = HashMap::new();
    for rule in rules {
        let part = RulePart { id: rule.id.0, net: rule.net, count: count(rule.id) };
        let place = *places.entry((rule.direction, rule.action, &rule.text)).or_insert(all.len());
        match all.get_mut(place) {
            Some(known) => {
                known.count.packets += part.count.packets;
                known.count.bytes += part.count.bytes;
                known.parts.push(part);
            }
            None => all.push(RuleReport {
                id: part.id,
                direction: rule.direction,
                action: rule.action,
                rule: rule.text.clone(),
                count: part.count,
                parts: vec![part],
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use lattice_policy::{Local, Overlay, Policy, effective_on, parse_rule};

    use super::*;

    #[test]
    fn a_report_of_an_older_release_names_no_ip_version() {
        let text = r#"{"id":1,"direction":"egress","action":"allow","rule":"x","packets":1,"bytes":9}"#;
        assert_eq!(serde_json::from_str::<RuleReport>(text).unwrap().versions(), "-");
    }

    #[test]
    fn a_rule_and_its_twin_are_one_and_others_are_not() {
        let overlay =
            Overlay::new("10.42.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()).unwrap();
        let flags = [
            "10.42.0.9/32:80",
            "api.example.com:443",
            "203.0.113.7/32",
            "[2001:db8::7]:80",
            "10.42.0.9/32:81",
        ];
        let flags: Vec<_> = flags.iter().map(|text| parse_rule(text).unwrap()).collect();
        let policy: Policy =
            effective_on::<lattice_policy::Layer>(1, &[], &Local::from(flags), &overlay).unwrap();
        let count = |id: RuleId| RuleCount { packets: 1 << id.0, bytes: 0 };
        let said: Vec<_> = summed(policy.rules().iter(), count)
            .iter()
            .map(|line| {
                assert_eq!(line.id, line.parts[0].id);
                let own: Vec<u32> = line.parts.iter().map(|part| part.id).collect();
                assert_eq!(line.count.packets, own.iter().map(|id| 1 << id).sum::<u64>(), "{line:?}");
                format!("{:?} {} {}", line.direction, line.rule, line.versions())
            })
            .collect();
        assert_eq!(
            said,
            [
                "Egress 10.42.0.9/32:80 v4+v6",
                "Egress api.example.com:443 v4+v6",
                "Egress 203.0.113.7/32 v4",
                "Egress [2001:db8::7]:80 v6",
                "Egress 10.42.0.9/32:81 v4+v6",
                "Ingress icmp:10.42.0.0/16 v4+v6",
            ]
        );
    }
}
