//! Whether a change of policy can take anything away.

use ipnet::IpNet;

use crate::{Action, Direction, Policy, PortRange, Proto, Rule, builtin};

/// Whether `new` surely allows all that `old` allows. `false` where it takes more than a look at single rules to tell. That the
/// pin of an address has room for so many lines is left aside.
pub fn only_widens(old: &Policy, new: &Policy) -> bool {
    [Direction::Egress, Direction::Ingress].into_iter().all(|direction| {
        covers(&rules(new, direction, Action::Allow), &rules(old, direction, Action::Allow))
            && covers(&rules(old, direction, Action::Deny), &rules(new, direction, Action::Deny))
    })
}

fn rules(policy: &Policy, direction: Direction, action: Action) -> Vec<&Rule> {
    policy.rules().iter().filter(|rule| rule.direction == direction && rule.action == action).collect()
}

/// Whether each of the `narrow` rules lies in one of the `wide` ones.
fn covers(wide: &[&Rule], narrow: &[&Rule]) -> bool {
    let wide = wide.iter().map(|rule| (rule.net, false, *rule));
    let mut all: Vec<(IpNet, bool, &Rule)> =
        wide.chain(narrow.iter().map(|rule| (rule.net, true, *rule))).collect();
    all.sort_by_key(|(net, is_narrow, _)| (*net, *is_narrow));
    let mut covering: Vec<&Rule> = Vec::new();
    for (net, is_narrow, rule) in all {
        while covering.last().is_some_and(|wide| !wide.net.contains(&net)) {
            covering.pop();
        }
        if !is_narrow {
            covering.push(rule);
        } else if !covering.iter().any(|wide| contains(wide, rule)) {
            return false;
        }
    }
    true
}

/// Whether `wide` fits every packet that `narrow` fits. The network of the first contains that of the second.
fn contains(wide: &Rule, narrow: &Rule) -> bool {
    let proto = wide.proto == Proto::Any || wide.proto == narrow.proto;
    let within = |range: &PortRange| wide.ports.iter().any(|wide| wide.lo <= range.lo && range.hi <= wide.hi);
    let ports = wide.ports.is_empty() || (!narrow.ports.is_empty() && narrow.ports.iter().all(within));
    // A name is resolved because a rule names it, and denied by the resolver, not by its addresses: one kind does not make
    // up for the other.
    let names = match (&wide.name, &narrow.name) {
        (None, None) => true,
        (Some(wide), Some(narrow)) => wide.covers(narrow),
        _ => false,
    };
    // To open a guarded address a rule must name just it.
    let opens =
        wide.net == narrow.net || !builtin::is_exact(&narrow.net) || !builtin::is_guarded(&narrow.net);
    proto && ports && names && opens
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_rule;

    fn policy(rules: &str) -> Policy {
        rules.split_whitespace().fold(Policy::new(1), |policy, rule| {
            let action = if rule.starts_with('-') { Action::Deny } else { Action::Allow };
            policy.egress(action, parse_rule(rule.trim_start_matches(['-', '+'])).unwrap())
        })
    }

    #[test]
    fn only_what_takes_nothing_away_widens() {
        for (old, new, widens) in [
            ("", "", true),
            ("", "+10.0.0.0/8", true),
            ("+10.0.0.0/8", "", false),
            ("+10.0.0.4/32:80", "+10.0.0.4/31", true),
            ("+10.0.0.4/31", "+10.0.0.4/32 +10.0.0.5/32", false),
            ("+tcp:10.0.0.4:80-90", "+10.0.0.0/8:70-85", false),
            ("+tcp:10.0.0.4:80", "+udp:10.0.0.4:80", false),
            ("+10.0.0.0/8", "+10.0.0.0/8 -10.0.0.1", false),
            ("+10.0.0.0/8 -10.0.0.0/24", "+10.0.0.0/8 -10.0.0.1", true),
            ("+169.254.169.254", "+0.0.0.0/0", false),
            ("", "+a.example.com", true),
            ("+a.example.com:443", "+*.example.com", true),
            ("+*.example.com", "+a.example.com", false),
            ("+a.example.com", "+a.example.com:443", false),
            ("+a.example.com", "+0.0.0.0/0 +::/0", false),
            ("+0.0.0.0/0", "+a.example.com", false),
            ("+*.example.com", "+*.example.com -a.example.com", false),
            ("+*.example.com -*.example.com", "+*.example.com -a.example.com", true),
            ("+a.example.com -0.0.0.0/0", "+a.example.com -0.0.0.0/0 -a.example.com", false),
            ("-a.example.com +0.0.0.0/0", "-10.0.0.1 +0.0.0.0/0", false),
        ] {
            assert_eq!(only_widens(&policy(old), &policy(new)), widens, "{old:?} {new:?}");
        }
    }
}
