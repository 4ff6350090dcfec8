//! Which rules lead out of the overlay.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lattice_policy::{Overlay, RuleSpec, Target};

use crate::overlay;

/// Whether a rule names something outside the `overlay`.
pub(crate) fn needs_uplink(rules: &[RuleSpec], overlay: &Overlay) -> bool {
    rules.iter().any(|rule| is_outside(rule, overlay))
}

/// The first rule that takes an uplink whatever the overlay, which is known only after the enrolment.
pub(crate) fn in_no_overlay(rules: &[RuleSpec]) -> Option<&RuleSpec> {
    let public = |net: &IpNet| match net {
        IpNet::V4(net) => !overlay::is_private(*net),
        IpNet::V6(net) => !overlay::ULA.contains(net),
    };
    rules.iter().find(|rule| targets(rule).iter().any(public))
}

/// Where a rule leads. The addresses of a name are not known yet.
pub(crate) fn targets(rule: &RuleSpec) -> Vec<IpNet> {
    match rule.target {
        Target::Net(net) => vec![net],
        Target::Name(_) => vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())],
    }
}

/// Whether `rule` names something outside the `overlay`.
pub(crate) fn is_outside(rule: &RuleSpec, overlay: &Overlay) -> bool {
    targets(rule).iter().any(|net| !overlay.contains(net))
}

#[cfg(test)]
mod tests {
    use lattice_policy::parse_rule;

    use super::*;

    fn needs(rules: &[&str]) -> bool {
        let rules: Vec<RuleSpec> = rules.iter().map(|text| parse_rule(text).unwrap()).collect();
        needs_uplink(&rules, &crate::live::tests::overlay())
    }

    #[test]
    fn only_what_is_outside_the_overlay_needs_an_uplink() {
        assert!(!needs(&[]));
        assert!(!needs(&[
            "tcp:10.42.0.9/32:80",
            "10.42.0.0/16",
            "10.42.128.0/17:1-2",
            "[fd12:3456:789a::a2a:9]:80"
        ]));
        for outside in [
            "api.example.com:443",
            "203.0.113.7/32:443",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "10.43.0.1/32",
            "::/0",
            "fd12:3456:789b::/48",
            "tcp:[2001:db8::7]:443",
        ] {
            assert!(needs(&["10.42.0.9/32:80", outside]), "{outside}");
        }
    }
}
