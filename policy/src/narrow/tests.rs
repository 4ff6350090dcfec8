use ipnet::IpNet;

use super::*;
use crate::{RuleId, parse_rule};

fn overlay() -> Overlay {
    Overlay::new("10.42.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()).unwrap()
}

fn allow(text: &str, policy: Option<&str>) -> LayerRule {
    LayerRule { action: Action::Allow, spec: parse_rule(text).unwrap(), policy: policy.map(str::to_owned) }
}

fn layer(name: &str, egress: &[&str]) -> Layer {
    Layer { egress: egress.iter().map(|text| allow(text, None)).collect(), ..Layer::closed(name) }
}

fn flags(texts: &[&str]) -> Vec<RuleSpec> {
    texts.iter().map(|text| parse_rule(text).unwrap()).collect()
}

fn combined(layers: &[Layer], flags: &[RuleSpec]) -> Policy {
    effective(1, layers, flags, &overlay()).unwrap()
}

/// Without those of the same text for the same peers' IPv6 addresses.
fn texts(policy: &Policy, direction: Direction) -> Vec<&str> {
    let twins = Overlay::prefix(&overlay()).into();
    let own = |rule: &&Rule| rule.direction == direction && !IpNet::contains(&twins, &rule.net);
    policy.rules().iter().filter(own).map(|rule| rule.text.as_str()).collect()
}

#[test]
fn flags_alone_decide_without_layers() {
    let policy = combined(&[], &flags(&["10.42.0.9:80", "10.42.0.1"]));
    assert_eq!(texts(&policy, Direction::Egress), ["10.42.0.9:80", "10.42.0.1"]);
    assert_eq!(texts(&policy, Direction::Ingress), ["icmp:10.42.0.0/16"]);
}

#[test]
fn an_open_layer_changes_neither_text_nor_order() {
    let policy =
        combined(&[layer("policies", &["0.0.0.0/0", "::/0"])], &flags(&["10.42.0.9:80", "10.42.0.1"]));
    assert_eq!(texts(&policy, Direction::Egress), ["10.42.0.9:80", "10.42.0.1"]);
    let both = [1, 2].map(|id| policy.rule(RuleId(id)).unwrap());
    assert_eq!(both.map(|rule| rule.text.as_str()), ["10.42.0.9:80"; 2]);
    assert_eq!(
        both.map(|rule| rule.net.to_string()),
        ["10.42.0.9/32".to_owned(), "fd12:3456:789a::a2a:9/128".to_owned()]
    );
}

#[test]
fn a_combined_rule_names_its_sources() {
    let mut policies = layer("policies", &[]);
    policies.egress = vec![allow("tcp:10.42.0.4/30:8080", Some("tools"))];
    policies.egress.push(LayerRule { action: Action::Deny, ..allow("10.42.0.6", Some("not-that")) });
    let preset = layer("preset sandboxed", &["10.42.0.5", "10.42.0.6"]);
    let policy = combined(&[policies, preset], &flags(&["10.42.0.0/16", "udp:10.42.0.5"]));
    assert_eq!(
        texts(&policy, Direction::Egress),
        [
            "tcp:10.42.0.5/32:8080 (policy tools, preset sandboxed)",
            "tcp:10.42.0.6/32:8080 (policy tools, preset sandboxed)",
            "10.42.0.6 (policy not-that)"
        ]
    );
}

#[test]
fn a_name_is_limited_by_networks_and_narrower_names() {
    let flags = flags(&["*.example.com:443", "api.example.org"]);
    let open = combined(&[layer("policies", &["0.0.0.0/0", "::/0"])], &flags);
    let both = ["*.example.com:443", "*.example.com:443", "api.example.org", "api.example.org"];
    assert_eq!(texts(&open, Direction::Egress), both, "one for each address family");

    let mut policies = layer("policies", &[]);
    policies.egress = ["tcp:a.example.com", "b.example.net", "198.41.128.0/17:80,443", "10.0.0.0/8"]
        .map(|text| allow(text, Some("web")))
        .into();
    policies.egress.push(LayerRule { action: Action::Deny, ..allow("no.example.com", Some("not-that")) });
    let policy = combined(&[policies], &flags);
    assert_eq!(
        texts(&policy, Direction::Egress),
        [
            "tcp:a.example.com:443 (policy web)",
            "*.example.com:443 in 198.41.128.0/17 (policy web)",
            "tcp:a.example.com:443 (policy web)",
            "api.example.org:80,443 in 198.41.128.0/17 (policy web)",
            "no.example.com (policy not-that)",
            "no.example.com (policy not-that)",
        ]
    );
    let limit = policy.rule(RuleId(2)).unwrap();
    assert_eq!(
        (limit.net.to_string(), limit.name.as_ref().unwrap().to_string()),
        ("198.41.128.0/17".into(), "*.example.com".into())
    );
    assert_eq!(policy.compile().egress.len(), builtin_prefixes(), "names are not in the table");
}

fn builtin_prefixes() -> usize {
    Policy::new(1).compile().egress.len()
}

#[test]
fn names_are_not_held_against_peers() {
    let tools: Vec<String> = (0..10_000).map(|n| format!("10.42.{}.{}:80", n / 200, n % 200)).collect();
    let tools = layer("tools", &tools.iter().map(String::as_str).collect::<Vec<_>>());
    let names: Vec<String> = (0..1000).map(|n| format!("h{n}.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let policy = combined(&[tools], &flags(&names));
    assert!(
        policy.rules().is_empty(),
        "no name opens a peer's address, and MAX_PAIRS is not reached in finding out"
    );
}

#[test]
fn nothing_is_allowed_without_flags() {
    let policy = combined(&[layer("policies", &["0.0.0.0/0"])], &[]);
    assert_eq!(texts(&policy, Direction::Egress), [""; 0]);
}

#[test]
fn a_guarded_address_stays_denied_unless_all_name_it() {
    let metadata = flags(&["169.254.169.254:80"]);
    assert!(combined(&[layer("policies", &["0.0.0.0/0"])], &metadata).rules().is_empty());
    let all = combined(&[layer("policies", &["0.0.0.0/0", "169.254.169.254"])], &metadata);
    assert_eq!(texts(&all, Direction::Egress), ["169.254.169.254:80 (policies)"]);
}

#[test]
fn what_grows_too_big_is_refused() {
    let ports =
        |proto: &str| -> Vec<String> { (1..=3000).map(|port| format!("{proto}:0.0.0.0/0:{port}")).collect() };
    let many = |texts: &[String]| texts.iter().map(|text| parse_rule(text).unwrap()).collect::<Vec<_>>();
    let wide = |specs: Vec<RuleSpec>| Layer {
        egress: specs.into_iter().map(LayerRule::allow).collect(),
        ..Layer::closed("wide")
    };
    let all = wide(many(&ports("tcp")));
    assert_eq!(effective(1, &[all], &many(&ports("udp")), &overlay()), Err(NarrowError::Pairs));

    let hosts: Vec<String> = (0..800).map(|n| format!("10.0.{}.{}", n / 200, n % 200)).collect();
    let above = wide(many(&ports("tcp")));
    let deny = |rule: LayerRule| LayerRule { action: Action::Deny, ..rule };
    let denies = Layer { egress: above.egress.into_iter().map(deny).collect(), ..Layer::closed("denies") };
    let open = LayerRule::allow(parse_rule("0.0.0.0/0").unwrap());
    let denies = Layer { egress: denies.egress.into_iter().chain([open]).collect(), ..denies };
    assert_eq!(effective(1, &[denies], &many(&hosts), &overlay()), Err(NarrowError::Lines));
}

#[test]
fn a_layer_of_the_most_rules_both_ways_fits() {
    let host = |n: usize| parse_rule(&format!("10.42.{}.{}", n / 250, n % 250)).unwrap();
    let most: Vec<LayerRule> = (0..layer::MAX_RULES - 1).map(host).map(LayerRule::allow).collect();
    let echo = LayerRule::allow(layer::echo(overlay().pool()));
    let ingress: Vec<LayerRule> = most.iter().cloned().chain([echo]).collect();
    let layer = Layer { egress: most, ingress, ..Layer::closed("policies") };
    let policy = effective(1, &[layer], &flags(&["10.42.0.0/16"]), &overlay()).unwrap();
    assert_eq!(policy.rules().len(), 4 * layer::MAX_RULES - 2, "each peer's two addresses, both ways");
}

#[test]
fn a_host_s_addresses_make_no_policy_too_big() {
    let wide: Vec<String> = (1..=3000).map(|port| format!("tcp:0.0.0.0/0:{port}")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    let with = |count: u8| {
        let unreachable = (0..count).map(|n| format!("192.0.2.{n}/32").parse().unwrap()).collect();
        effective_on::<Layer>(1, &[], &Local { unreachable, ..flags(&wide).into() }, &overlay()).unwrap()
    };
    let (few, none, many) = (with(2), with(0), with(250));
    assert!(few.is_closed() && !many.is_closed());
    assert!(many.rules() == none.rules());
}

#[test]
fn ten_thousand_disjoint_rules_meet_quickly() {
    let hosts: Vec<String> = (0..10_000).map(|n| format!("10.42.{}.{}:80", n / 200, n % 200)).collect();
    let specs: Vec<RuleSpec> = hosts.iter().map(|text| parse_rule(text).unwrap()).collect();
    let tools =
        Layer { egress: specs.iter().cloned().map(LayerRule::allow).collect(), ..Layer::closed("tools") };
    let policy = effective(1, &[tools], &specs, &overlay()).unwrap();
    assert_eq!(policy.rules().len(), 20_000, "pairs stay below MAX_PAIRS, which all with all would not");
}

#[test]
fn what_is_offered_is_reached_as_far_as_layers_say_who_may() {
    let offered = vec![crate::parse_rule("tcp:10.42.0.0/16:8080").unwrap()];
    let local = Local { offered, ..Local::default() };
    let reached = |layers: &[Layer], from: &str| {
        let policy = effective_on(1, layers, &local, &overlay()).unwrap();
        let packet = crate::Packet {
            direction: Direction::Ingress,
            proto: 6,
            remote: from.parse().unwrap(),
            port: Some(8080),
        };
        crate::evaluate(&policy, &packet).action == Action::Allow
    };
    let with = |rules: &[(Action, &str, bool)]| {
        let rule = |(action, text, named): &(Action, &str, bool)| crate::LayerRule {
            action: *action,
            spec: crate::parse_rule(text).unwrap(),
            policy: named.then(|| "p".to_owned()),
        };
        Layer { ingress: rules.iter().map(rule).collect(), ..Layer::closed("policies") }
    };
    let (allow, deny, echo) = (Action::Allow, Action::Deny, (Action::Allow, "icmp:10.42.0.0/16", false));
    let from = "10.42.0.7";
    assert!(reached(&[], from));
    assert!(reached(&[with(&[echo])], from), "no policy is about ingress");
    assert!(!reached(&[with(&[echo, (deny, "10.42.0.7", true)])], from));
    assert!(!reached(&[with(&[echo, (allow, "tcp:10.42.0.8:8080", true)])], from));
    assert!(reached(&[with(&[echo, (allow, "tcp:10.42.0.7:8080", true)])], from));
    assert!(!reached(&[with(&[echo]), Layer::closed("preset sandboxed")], from));
    assert!(!reached(&[with(&[])], from), "a layer that could not be read");
}

#[test]
fn where_the_way_out_leads_nobody_no_rule_does_and_the_record_knows_why() {
    let unreachable = vec!["192.0.2.1/32".parse().unwrap(), "198.19.0.4/31".parse().unwrap()];
    let flags = ["0.0.0.0/0", "tcp:192.0.2.1:80"].map(|text| crate::parse_rule(text).unwrap());
    let unrouted = vec!["2001:db8:9::/48".parse().unwrap()];
    let local = Local { unreachable, unrouted, ..Local::from(flags.to_vec()) };
    let closes = |texts: &[&str]| {
        let rule = |text: &&str| crate::LayerRule {
            action: Action::Deny,
            spec: crate::parse_rule(text).unwrap(),
            policy: Some("p".to_owned()),
        };
        let rules = texts.iter().map(rule).chain([LayerRule::allow(crate::parse_rule("0.0.0.0/0").unwrap())]);
        Layer { egress: rules.collect(), ..Layer::closed("policies") }
    };
    let said = |layers: &[Layer], to: &str, direction| {
        let policy = effective_on(1, layers, &local, &overlay()).unwrap();
        let packet = crate::Packet { direction, proto: 6, remote: to.parse().unwrap(), port: Some(80) };
        let verdict = crate::evaluate(&policy, &packet);
        assert_eq!(policy.compile().lookup(&packet), verdict);
        (verdict.action, policy.reason(verdict.reason, verdict.rule))
    };
    use crate::Reason::{DefaultDeny, RuleAllow, RuleDeny, Uplink};
    use Direction::{Egress, Ingress};
    assert_eq!(said(&[], "192.0.2.1", Egress), (Action::Deny, Uplink));
    assert_eq!(said(&[], "198.19.0.5", Egress), (Action::Deny, Uplink));
    assert_eq!(said(&[], "2001:db8:9::1", Egress), (Action::Deny, Uplink));
    assert_eq!(said(&[], "198.19.0.6", Egress), (Action::Allow, RuleAllow));
    assert_eq!(said(&[], "192.0.2.1", Ingress), (Action::Deny, DefaultDeny));
    let layer = [closes(&["192.0.2.0/24"])];
    assert_eq!(said(&layer, "192.0.2.1", Egress), (Action::Deny, RuleDeny), "a policy says so, too");
    assert_eq!(said(&layer, "198.19.0.5", Egress), (Action::Deny, Uplink));
}

/// A pod: nothing but its policy keeps it from the node.
fn in_a_pod(asked: &[&str], most: &[&str], unreachable: &[&str]) -> Local {
    let unreachable = unreachable.iter().map(|net| net.parse().unwrap()).collect();
    Local { unreachable, most: Some(flags(most)), ..Local::from(flags(asked)) }
}

#[test]
fn a_node_is_reached_by_the_ports_that_its_own_limit_names_at_its_own_address() {
    let said = |asked: &[&str], most: &[&str], to: &str, proto: u8, port: Option<u16>| {
        let local = in_a_pod(asked, most, &["192.0.2.1/32", "2001:db8::1/128"]);
        let policy = effective_on::<Layer>(1, &[], &local, &overlay()).unwrap();
        let packet = crate::Packet { direction: Direction::Egress, proto, remote: to.parse().unwrap(), port };
        let verdict = crate::evaluate(&policy, &packet);
        assert_eq!(policy.compile().lookup(&packet), verdict);
        (verdict.action, policy.reason(verdict.reason, verdict.rule))
    };
    use crate::Reason::{DefaultDeny, RuleAllow, Uplink};
    let (tcp, udp, icmp) = (6, 17, 1);
    let (open, closed) = ((Action::Allow, RuleAllow), (Action::Deny, Uplink));
    let everything = ["0.0.0.0/0", "::/0"];
    for asked in [&everything[..], &["192.0.2.1/32", "2001:db8::1/128", "192.0.2.2"]] {
        for (to, port) in [("192.0.2.1", 10250), ("2001:db8::1", 10250)] {
            assert_eq!(said(asked, &everything, to, tcp, Some(port)), closed, "{asked:?}: {to}");
        }
        assert_eq!(said(asked, &everything, "192.0.2.1", icmp, None), closed);
        assert_eq!(said(asked, &everything, "192.0.2.2", tcp, Some(10250)), open);
        assert_eq!(said(asked, &["192.0.2.0/31"], "192.0.2.1", tcp, Some(80)), closed, "its network");

        let most = ["0.0.0.0/0", "tcp:192.0.2.1/32:9100-9101", "192.0.2.1/32:53"];
        for (proto, port, expected) in [
            (tcp, 9099, closed),
            (tcp, 9100, open),
            (tcp, 9101, open),
            (tcp, 9102, closed),
            (tcp, 0, closed),
            (tcp, 65535, closed),
            (tcp, 53, open),
            (udp, 53, open),
            (udp, 9100, closed),
        ] {
            assert_eq!(said(asked, &most, "192.0.2.1", proto, Some(port)), expected, "{proto} {port}");
        }
        assert_eq!(said(asked, &most, "192.0.2.1", icmp, None), closed);
        let most = ["0.0.0.0/0", "tcp:192.0.2.1/32:1-65535", "icmp:192.0.2.1"];
        assert_eq!(said(asked, &most, "192.0.2.1", tcp, Some(65535)), open);
        assert_eq!(said(asked, &most, "192.0.2.1", icmp, None), open);
        assert_eq!(said(asked, &most, "192.0.2.1", udp, Some(53)), closed);
        assert_eq!(said(asked, &["192.0.2.1"], "192.0.2.1", udp, Some(53)), open);
        let most = ["0.0.0.0/0", "tcp:192.0.2.1/32:9100"];
        assert_eq!(said(asked, &most, "192.0.2.1", udp, None), closed, "a later fragment");
    }
    let default = (Action::Deny, DefaultDeny);
    assert_eq!(said(&["192.0.2.2"], &everything, "192.0.2.1", tcp, Some(80)), default, "asked by nobody");
    let by_name = ["api.example.com:443"];
    let local = in_a_pod(&by_name, &by_name, &["192.0.2.1/32"]);
    assert!(effective_on::<Layer>(1, &[], &local, &overlay()).unwrap().is_closed(), "whatever the name has");
}

#[test]
fn a_part_of_what_is_local_to_a_node_as_a_whole_is_no_way_around() {
    let said = |asked: &[&str], most: &[&str]| {
        let local = in_a_pod(asked, most, &["192.0.2.0/24"]);
        let policy = effective_on::<Layer>(1, &[], &local, &overlay()).unwrap();
        let remote = "192.0.2.7".parse().unwrap();
        let packet = crate::Packet { direction: Direction::Egress, proto: 6, remote, port: Some(80) };
        crate::evaluate(&policy, &packet).action
    };
    for asked in ["0.0.0.0/0", "192.0.2.0/28", "192.0.2.7"] {
        assert_eq!(said(&[asked], &["0.0.0.0/0"]), Action::Deny, "{asked}");
        assert_eq!(said(&[asked], &["192.0.2.0/24"]), Action::Allow, "{asked}");
    }
}

#[test]
fn a_node_whose_addresses_do_not_fit_leaves_no_policy() {
    let wide: Vec<String> = (1..=3000).map(|port| format!("tcp:0.0.0.0/0:{port}")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    let nets: Vec<String> = (0..250).map(|n| format!("192.0.2.{n}/32")).collect();
    let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
    let with = |nets: &[&str]| {
        effective_on::<Layer>(1, &[], &in_a_pod(&wide, &["0.0.0.0/0"], nets), &overlay()).map(drop)
    };
    assert_eq!(with(&nets[..2]), Ok(()));
    assert_eq!(with(&nets), Err(NarrowError::Lines));
}

#[test]
fn what_has_no_route_gives_way_to_what_nobody_may_reach() {
    let wide: Vec<String> = (1..=3000).map(|port| format!("tcp:0.0.0.0/0:{port}")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    let unreachable = vec!["192.0.2.1/32".parse().unwrap()];
    let unrouted = (0..250).map(|n| format!("203.0.113.{n}/32").parse().unwrap()).collect();
    let local = Local { unreachable, unrouted, ..Local::from(flags(&wide)) };
    let policy = effective_on::<Layer>(1, &[], &local, &overlay()).unwrap();
    let closed: Vec<String> = policy
        .rules()
        .iter()
        .filter(|rule| rule.action == Action::Deny)
        .map(|rule| rule.net.to_string())
        .collect();
    assert_eq!(closed, ["192.0.2.1/32"]);
}
