use super::*;
use crate::{LayerRule, parse_rule};

/// `+` allows, `-` denies.
fn layer(name: &str, rules: &[&str]) -> Layer {
    let rule = |text: &&str| LayerRule {
        action: if text.starts_with('-') { Action::Deny } else { Action::Allow },
        spec: parse_rule(&text[1..]).unwrap(),
        policy: (name == "policies").then(|| format!("p{}", text.len())),
    };
    Layer { egress: rules.iter().map(rule).collect(), ..Layer::closed(name) }
}

/// What is said of a TCP flow to port 443.
fn say(layers: &[Layer], flags: &[&str], name: &str) -> Vec<String> {
    let flags: Vec<RuleSpec> = flags.iter().map(|text| parse_rule(text).unwrap()).collect();
    let flow = NamedFlow { name: name.parse().unwrap(), proto: Proto::Tcp, port: Some(443) };
    let prefix = "fd12:3456:789a::/48".parse().unwrap();
    let overlay = crate::Overlay::new("10.42.0.0/16".parse().unwrap(), prefix).unwrap();
    let opinions = explain_name(layers, &flags, &overlay, &flow);
    let words = |o: &Opinion| {
        let (rule, policy) = (o.rule.as_deref().unwrap_or("-"), o.policy.as_deref().unwrap_or("-"));
        format!("{} {:?} {:?} {rule} {policy}", o.layer, o.action, o.reason)
    };
    opinions.iter().map(words).collect()
}

#[test]
fn the_rule_that_permits_a_name_is_told() {
    let layers = [layer("policies", &["+10.42.0.1", "+*.example.com:443", "-no.example.com"])];
    assert_eq!(
        say(&layers, &["tcp:a.example.com"], "a.example.com"),
        [
            "policies Allow RuleAllow *.example.com:443 p18",
            "flags Allow RuleAllow tcp:a.example.com -",
            "resolver Allow RuleAllow tcp:a.example.com:443 (policy p18) -"
        ]
    );
    assert_eq!(
        say(&layers, &["*.example.com"], "no.example.com"),
        [
            "policies Deny RuleDeny no.example.com p15",
            "flags Allow RuleAllow *.example.com -",
            "resolver Deny Name no.example.com (policy p15) -"
        ]
    );
    assert_eq!(
        say(&layers, &["other.org"], "other.org"),
        ["policies Deny DefaultDeny - -", "flags Allow RuleAllow other.org -", "resolver Deny Name - -"]
    );
}

#[test]
fn addresses_alone_do_not_make_a_name_known() {
    let open = [layer("policies", &["+0.0.0.0/0", "+::/0"])];
    assert_eq!(say(&open, &["0.0.0.0/0:443"], "a.example.com")[2], "resolver Deny Name - -");
    let limited = [layer("policies", &["+10.0.0.0/8", "+198.41.128.0/17:443"])];
    assert_eq!(
        say(&limited, &["a.example.com"], "a.example.com"),
        [
            "policies Allow RuleAllow 198.41.128.0/17:443 p20",
            "flags Allow RuleAllow a.example.com -",
            "resolver Allow RuleAllow a.example.com:443 in 198.41.128.0/17 (policy p20) -"
        ]
    );
    let peers = [layer("preset sandboxed", &["+10.42.0.6/32"])];
    assert_eq!(say(&peers, &["a.example.com"], "a.example.com")[2], "resolver Deny Name - -");
}

#[test]
fn what_denies_every_address_denies_the_name() {
    let half = [layer("policies", &["-0.0.0.0/0:443", "+*.example.com"])];
    assert_eq!(
        say(&half, &["a.example.com"], "a.example.com")[2],
        "resolver Allow RuleAllow a.example.com (policy p14) -",
        "by IPv6"
    );
    let both = [layer("policies", &["+*.example.com", "-0.0.0.0/0:443", "-::/0"])];
    let opinions = say(&both, &["a.example.com"], "a.example.com");
    assert_eq!(opinions[0], "policies Deny RuleDeny 0.0.0.0/0:443 p14");
    assert_eq!(opinions[2], "resolver Deny Name - -");
}
