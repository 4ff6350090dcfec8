use super::*;
use crate::PolicyRule;

fn member(name: &str, kind: MemberKind, host: u8, labels: &str) -> Member {
    let address = [10, 42, 0, host].into();
    Member { name: name.into(), kind, address, labels: labels.parse().unwrap(), preset: None }
}

fn workspace() -> Vec<Member> {
    use MemberKind::{Node, Sandbox};
    vec![
        member("a", Sandbox, 2, "role=agent"),
        member("b", Sandbox, 3, "role=agent"),
        member("search", Node, 4, "role=tool,ports=8080+9000-9001"),
        member("files", Sandbox, 5, "role=tool,ports=8080+9000-9001"),
        member("any", Node, 6, "role=tool"),
        member("odd", Node, 7, "role=tool,ports=http"),
        member("db", Node, 8, "role=db"),
    ]
}

/// Rules as `egress allow tcp:{role=tool}:8080`.
fn policy(name: &str, selector: &str, rules: &[&str]) -> NamedPolicy {
    let rule = |text: &&str| {
        let mut words = text.split(' ');
        let json = |word: &str| format!("\"{word}\"");
        PolicyRule {
            direction: serde_json::from_str(&json(words.next().unwrap())).unwrap(),
            action: serde_json::from_str(&json(words.next().unwrap())).unwrap(),
            rule: words.next().unwrap().parse().unwrap(),
        }
    };
    let rules = rules.iter().map(rule).collect();
    NamedPolicy { name: name.into(), selector: selector.parse().unwrap(), rules, description: String::new() }
}

/// The layers of `name`, each as its name, its egress and its ingress.
fn layers(
    name: &str,
    preset: Option<Preset>,
    policies: &[NamedPolicy],
) -> Vec<(String, Vec<String>, Vec<String>)> {
    let members = workspace();
    let mut compiler = Compiler::new("10.42.0.0/16".parse().unwrap(), &members, policies);
    let receiver = members.iter().find(|member| member.name == name).unwrap();
    let layers = compiler.layers(&Member { preset, ..receiver.clone() });
    let text = |rule: &LayerRule| {
        let action = if rule.action == Action::Allow { '+' } else { '-' };
        assert_eq!(crate::parse_rule(&rule.spec.text).as_ref(), Ok(&rule.spec), "a receiver reads the same");
        format!("{action}{} {}", rule.spec.text, rule.policy.as_deref().unwrap_or("")).trim().to_owned()
    };
    let texts = |rules: &[LayerRule]| rules.iter().map(text).collect();
    layers.iter().map(|layer| (layer.name.clone(), texts(&layer.egress), texts(&layer.ingress))).collect()
}

#[test]
fn without_a_policy_egress_is_left_to_the_flags_and_ingress_is_echo() {
    let layers = layers("a", None, &[policy("db", "role=db", &["egress allow {}"])]);
    let [(name, egress, ingress)] = layers.as_slice() else { panic!("{layers:?}") };
    assert_eq!(name, "policies");
    assert_eq!(egress, &["+0.0.0.0/0", "+::/0"]);
    assert_eq!(ingress, &["+icmp:10.42.0.0/16"]);
}

#[test]
fn policies_that_select_the_receiver_add_up() {
    let policies = [
        policy("tools", "role=agent", &["egress allow tcp:{role=tool}:8080", "ingress allow {name=b}:22"]),
        policy("db", "name=a,kind=sandbox", &["egress allow {role=db}", "egress deny {role=db}:22"]),
        policy("other", "!role", &["egress deny 0.0.0.0/0"]),
    ];
    let layers = layers("a", None, &policies);
    let tools = ["+tcp:10.42.0.4/30:8080 tools"];
    assert_eq!(layers[0].1[..1], tools, "four neighbours are one network");
    assert_eq!(layers[0].1[1..], ["+10.42.0.8/32 db", "-10.42.0.8/32:22 db"]);
    assert_eq!(layers[0].2, ["+10.42.0.3/32:22 tools", "+icmp:10.42.0.0/16"]);
}

#[test]
fn a_selector_that_nobody_fits_opens_nothing() {
    let layers = layers("a", None, &[policy("gone", "", &["egress allow {role=gone}"])]);
    assert_eq!(layers[0].1, [""; 0]);
}

#[test]
fn a_deny_rule_alone_leaves_the_rest_open() {
    let layers =
        layers("a", None, &[policy("no-ssh", "", &["egress deny {}:22", "ingress deny icmp:{name=b}"])]);
    assert_eq!(layers[0].1.last().unwrap(), "+::/0");
    assert_eq!(layers[0].1[0], "-10.42.0.2/31:22 no-ssh");
    assert_eq!(layers[0].2, ["-icmp:10.42.0.3/32 no-ssh", "+icmp:10.42.0.0/16"]);
}

#[test]
fn sandboxed_reaches_tools_on_their_ports() {
    let layers = layers("a", Some(Preset::Sandboxed), &[]);
    let (name, egress, ingress) = &layers[1];
    assert_eq!(name, "preset sandboxed");
    assert_eq!(egress, &["+10.42.0.6/32", "+10.42.0.4/31:8080,9000-9001"]);
    assert_eq!(ingress, &[""; 0]);
}

#[test]
fn coordinator_is_reached_by_sandboxes() {
    let layers = layers("a", Some(Preset::Coordinator), &[]);
    let (name, egress, ingress) = &layers[1];
    assert_eq!(name, "preset coordinator");
    assert_eq!(egress, &["+0.0.0.0/0", "+::/0"]);
    assert_eq!(ingress, &["+10.42.0.2/31", "+10.42.0.5/32", "+icmp:10.42.0.0/16"]);
}

#[test]
fn isolated_reaches_what_is_named_exactly() {
    assert_eq!(layers("a", Some(Preset::Isolated), &[])[1], ("preset isolated".into(), vec![], vec![]));
    let rules = [
        "egress allow tcp:10.42.0.8:5432",
        "egress allow {name=search}:8080",
        "egress allow 10.42.0.0/16:80",
        "egress allow 10.42.0.9",
        "egress allow {}",
        "egress deny 10.42.0.8:1",
        "ingress allow {}:80",
    ];
    let layers = layers("a", Some(Preset::Isolated), &[policy("p", "", &rules)]);
    assert_eq!(layers[1].1, ["+tcp:10.42.0.8/32:5432 p", "+10.42.0.4/32:8080 p"]);
    assert_eq!(layers[1].2, [""; 0]);
}

#[test]
fn names_reach_the_receiver_as_text() {
    let rules = [
        "egress allow tcp:API.example.com.:443",
        "egress allow *.example.com:443",
        "egress allow api.example.org",
        "egress deny no.example.com",
    ];
    let layers = layers("a", Some(Preset::Isolated), &[policy("web", "", &rules)]);
    let all = [
        "+tcp:api.example.com:443 web",
        "+*.example.com:443 web",
        "+api.example.org web",
        "-no.example.com web",
    ];
    assert_eq!(layers[0].1, all, "an allow rule by name closes the rest");
    assert_eq!(layers[1].1, all[..1], "isolated takes one name with ports");
}

#[test]
fn peers_of_the_same_policies_share_their_layer() {
    let members = workspace();
    let policies = [policy("tools", "role=agent", &["egress allow {role=tool}"])];
    let mut compiler = Compiler::new("10.42.0.0/16".parse().unwrap(), &members, &policies);
    let [a, b, db] = [0, 1, 6].map(|index| compiler.layers(&members[index])[0].clone());
    assert!(Arc::ptr_eq(&a, &b));
    assert!(!Arc::ptr_eq(&a, &db));
}

#[test]
fn policies_of_more_rules_than_a_layer_holds_deny_without_being_expanded() {
    // Every second address, so that nothing aggregates.
    let members: Vec<Member> = (0..400u16)
        .map(|n| Member {
            address: std::net::Ipv4Addr::from(0x0A2A_0002 + u32::from(n) * 2),
            ..member(&format!("m{n}"), MemberKind::Node, 0, "")
        })
        .collect();
    let rules = |count: usize| -> Vec<String> {
        (1..=count).map(|port| format!("egress allow tcp:{{kind=node}}:{port}")).collect()
    };
    for (count, too_much) in [(49, false), (50, true)] {
        let rules = rules(count);
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let policies = [policy("wide", "name=m1", &rules)];
        let mut compiler = Compiler::new("10.42.0.0/16".parse().unwrap(), &members, &policies);
        assert_eq!(compiler.is_too_much(&members[1]), too_much);
        assert!(!compiler.is_too_much(&members[2]), "it selects one peer only");
        let layer = &compiler.layers(&members[1])[0];
        assert_eq!(layer.egress.len(), if too_much { 0 } else { 400 * count });
        assert_eq!(layer.ingress.is_empty(), too_much);
    }
}
