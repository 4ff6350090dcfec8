//! Rules that hold in every policy: no agent reaches cloud metadata, link-local, multicast or broadcast addresses
//! by the way of a wide allow rule such as `0.0.0.0/0`.
//!
//! An allow rule whose network is exactly the one address (`169.254.169.254/32`) goes before them; a deny rule goes
//! before everything.

use std::{net::IpAddr, sync::LazyLock};

use ipnet::IpNet;

use crate::{Action, Direction, Proto, Reason, Rule, RuleId};

/// The first reserved id; every id from here up to `u32::MAX` belongs to this module.
pub const FIRST: RuleId = RuleId(0xFFFF_FF00);

/// Most specific first: where two hold, the lower id is reported, and that should be the one that says more.
const NETS: [(&str, &str); 16] = [
    ("169.254.169.254/32", "cloud metadata"),
    ("169.254.170.2/32", "cloud metadata"),
    ("100.100.100.200/32", "cloud metadata"),
    ("168.63.129.16/32", "cloud metadata"),
    ("fd00:ec2::254/128", "cloud metadata"),
    ("fd20:ce::254/128", "cloud metadata"),
    ("64:ff9b::a9fe:a9fe/128", "cloud metadata by NAT64"),
    ("64:ff9b::6464:64c8/128", "cloud metadata by NAT64"),
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    ("64:ff9b::a9fe:0/112", "link-local by NAT64"),
    ("2002:a9fe::/32", "link-local by 6to4"),
    ("224.0.0.0/4", MULTICAST),
    ("ff00::/8", MULTICAST),
    ("64:ff9b::e000:0/100", "multicast by NAT64"),
    ("255.255.255.255/32", BROADCAST),
];

const MULTICAST: &str = "multicast";
const BROADCAST: &str = "broadcast";

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let directions = [Direction::Egress, Direction::Ingress];
    let nets = NETS.iter().filter_map(|(net, what)| Some((net.parse::<IpNet>().ok()?, *what)));
    let pairs = nets.flat_map(|net| directions.map(|direction| (net, direction)));
    (FIRST.0..)
        .zip(pairs)
        .map(|(id, ((net, what), direction))| Rule {
            id: RuleId(id),
            text: format!("built-in: {what} {net} unless it is allowed by its exact address"),
            direction,
            action: Action::Deny,
            proto: Proto::Any,
            net,
            name: None,
            ports: Vec::new(),
        })
        .collect()
});

/// Every built-in rule, in the order of their ids.
pub fn rules() -> &'static [Rule] {
    &RULES
}

/// The built-in rule with this id.
pub fn rule(id: RuleId) -> Option<&'static Rule> {
    let index = usize::try_from(id.0.checked_sub(FIRST.0)?).ok()?;
    RULES.get(index)
}

/// The reason that goes with a verdict of rule `id`, for enforcers that carry only the action and the id.
pub fn reason(action: Action, id: RuleId) -> Reason {
    match (action, id) {
        (Action::Deny, RuleId::NONE) => Reason::DefaultDeny,
        (Action::Allow, _) => Reason::RuleAllow,
        (Action::Deny, _) if rule(id).is_some_and(is_multicast) => Reason::Multicast,
        (Action::Deny, _) => Reason::RuleDeny,
    }
}

/// Whether `net` is one single address, which is how a rule opens an address that is denied here.
pub(crate) fn is_exact(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// Whether a built-in rule covers `net`.
pub(crate) fn is_guarded(net: &IpNet) -> bool {
    RULES.iter().any(|rule| rule.net.contains(net))
}

fn is_multicast(rule: &Rule) -> bool {
    match rule.net.addr() {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_is_a_rule_in_both_directions() {
        assert_eq!(rules().len(), 2 * NETS.len());
        for rule in rules() {
            assert_eq!(rule.net, rule.net.trunc(), "{}", rule.text);
            assert_eq!(super::rule(rule.id), Some(rule));
        }
    }

    #[test]
    fn the_more_specific_rule_has_the_lower_id() {
        for (i, rule) in rules().iter().enumerate() {
            for later in &rules()[i..] {
                assert!(later.net == rule.net || !rule.net.contains(&later.net), "{}", later.text);
            }
        }
    }

    #[test]
    fn multicast_is_told_from_the_rest() {
        let told = rules().iter().filter(|rule| reason(Action::Deny, rule.id) == Reason::Multicast).count();
        assert_eq!(told, 6);
    }
}
