//! Both deciders against verdicts written down by hand.

use super::*;
use crate::parse_rule;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// `+` allows, `-` denies, `>` is egress and `<` ingress.
fn policy(rules: &[&str]) -> Policy {
    rules.iter().fold(Policy::new(1), |policy, rule| {
        let spec = parse_rule(&rule[2..]).unwrap();
        let action = if rule.starts_with('+') { Action::Allow } else { Action::Deny };
        if rule[1..].starts_with('>') { policy.egress(action, spec) } else { policy.ingress(action, spec) }
    })
}

fn decide(rules: &[&str], proto: u8, remote: &str, port: impl Into<Option<u16>>) -> Verdict {
    decide_in(Direction::Egress, rules, proto, remote, port.into())
}

fn decide_in(direction: Direction, rules: &[&str], proto: u8, remote: &str, port: Option<u16>) -> Verdict {
    let policy = policy(rules);
    let packet = Packet { direction, proto, remote: remote.parse().unwrap(), port };
    let verdict = evaluate(&policy, &packet);
    assert_eq!(policy.compile().lookup(&packet), verdict, "{rules:?} {packet:?}");
    verdict
}

fn allow(rule: u32) -> Verdict {
    Verdict { action: Action::Allow, rule: RuleId(rule), reason: Reason::RuleAllow }
}

fn deny(rule: u32) -> Verdict {
    Verdict { action: Action::Deny, rule: RuleId(rule), reason: Reason::RuleDeny }
}

/// The text of the built-in rule that denied.
fn guard(verdict: Verdict) -> &'static str {
    assert_eq!(verdict.action, Action::Deny);
    &builtin::rule(verdict.rule).expect("a built-in rule").text
}

#[test]
fn default_is_deny_in_both_directions() {
    assert_eq!(decide(&[], TCP, "10.0.0.1", 80), Verdict::DEFAULT);
    let ingress_only = ["+<10.0.0.1"];
    assert_eq!(decide(&ingress_only, TCP, "10.0.0.1", 80), Verdict::DEFAULT);
    assert_eq!(decide_in(Direction::Ingress, &ingress_only, TCP, "10.0.0.1", Some(80)), allow(1));
}

#[test]
fn deny_wins_whatever_the_prefix_lengths() {
    let wide_deny = ["+>10.0.0.1/32:80", "->10.0.0.0/8"];
    assert_eq!(decide(&wide_deny, TCP, "10.0.0.1", 80), deny(2));
    let narrow_deny = ["+>10.0.0.0/8", "->10.0.0.1/32:80"];
    assert_eq!(decide(&narrow_deny, TCP, "10.0.0.1", 80), deny(2));
    assert_eq!(decide(&narrow_deny, TCP, "10.0.0.1", 81), allow(1));
    assert_eq!(decide(&narrow_deny, TCP, "10.0.0.2", 80), allow(1));
}

#[test]
fn the_lowest_id_is_reported() {
    let allows = ["+>10.0.0.1/32", "+>10.0.0.0/8", "+>10.0.0.1/32"];
    assert_eq!(decide(&allows, TCP, "10.0.0.1", 80), allow(1));
    let reversed = ["+>0.0.0.0/0", "+>10.0.0.0/8", "->10.0.0.1", "->10.0.0.0/24"];
    assert_eq!(decide(&reversed, TCP, "10.1.0.1", 80), allow(1));
    assert_eq!(decide(&reversed, TCP, "10.0.0.1", 80), deny(3));
    assert_eq!(decide(&reversed, TCP, "10.0.0.2", 80), deny(4));
}

#[test]
fn a_rule_with_ports_means_tcp_and_udp() {
    let rules = ["+>10.0.0.0/8:80,443"];
    assert_eq!(decide(&rules, TCP, "10.0.0.1", 443), allow(1));
    assert_eq!(decide(&rules, UDP, "10.0.0.1", 80), allow(1));
    assert_eq!(decide(&rules, TCP, "10.0.0.1", 81), Verdict::DEFAULT);
    assert_eq!(decide(&rules, ICMP, "10.0.0.1", None), Verdict::DEFAULT);
    assert_eq!(decide(&rules, ICMP, "10.0.0.1", 80), Verdict::DEFAULT);
    assert_eq!(decide(&["+>tcp:10.0.0.1:443"], UDP, "10.0.0.1", 443), Verdict::DEFAULT);
}

#[test]
fn a_rule_without_ports_means_icmp_and_later_fragments_too() {
    let rules = ["+>10.0.0.0/8", "+>[fd00::/8]"];
    assert_eq!(decide(&rules, ICMP, "10.0.0.1", None), allow(1));
    assert_eq!(decide(&rules, ICMP6, "fd00::1", None), allow(2));
    assert_eq!(decide(&rules, UDP, "10.0.0.1", None), allow(1));
    assert_eq!(decide(&rules, TCP, "10.0.0.1", 0), allow(1));
    assert_eq!(decide(&["+>10.0.0.0/8:1-65535"], UDP, "10.0.0.1", None), Verdict::DEFAULT);
}

#[test]
fn protocols_that_no_rule_can_name_are_denied() {
    let rules = ["+>0.0.0.0/0", "+>::/0"];
    for proto in [0, 2, 4, 33, 41, 47, 50, 132, 136, 255, ICMP6] {
        assert_eq!(decide(&rules, proto, "10.0.0.1", 80), Verdict::PROTOCOL, "{proto}");
    }
    assert_eq!(decide(&rules, ICMP, "fd00::1", None), Verdict::PROTOCOL);
}

#[test]
fn a_mapped_address_is_its_ipv4_address() {
    let rules = ["+>10.0.0.1", "+>::/0"];
    assert_eq!(decide(&rules, TCP, "::ffff:10.0.0.1", 80), allow(1));
    assert_eq!(decide(&rules, ICMP, "::ffff:10.0.0.1", None), allow(1));
    assert_eq!(decide(&rules, TCP, "::ffff:10.0.0.2", 80), Verdict::DEFAULT);
    assert!(guard(decide(&rules, TCP, "::ffff:169.254.169.254", 80)).contains("metadata"));
}

#[test]
fn a_wide_rule_does_not_open_metadata_link_local_multicast_or_broadcast() {
    let wide =
        ["+>0.0.0.0/0", "+>::/0", "+>169.254.169.254/31", "+>fd00:ec2::/64", "+>224.0.0.0/4", "+>fe80::/10"];
    for (remote, what) in [
        ("169.254.169.254", "cloud metadata 169.254.169.254/32"),
        ("169.254.170.2", "cloud metadata 169.254.170.2/32"),
        ("100.100.100.200", "cloud metadata 100.100.100.200/32"),
        ("fd00:ec2::254", "cloud metadata fd00:ec2::254/128"),
        ("64:ff9b::169.254.169.254", "cloud metadata by NAT64"),
        ("169.254.0.1", "link-local 169.254.0.0/16"),
        ("fe80::1", "link-local fe80::/10"),
        ("2002:a9fe:a9fe::", "link-local by 6to4"),
        ("224.0.0.251", "multicast 224.0.0.0/4"),
        ("64:ff9b::239.255.255.250", "multicast by NAT64"),
        ("255.255.255.255", "broadcast"),
        ("ff02::fb", "multicast ff00::/8"),
    ] {
        let verdict = decide(&wide, UDP, remote, 53);
        assert!(guard(verdict).contains(what), "{remote}: {}", guard(verdict));
        assert!(guard(decide(&[], UDP, remote, 53)).contains(what), "{remote} without rules");
        assert!(
            guard(decide_in(Direction::Ingress, &["+<0.0.0.0/0", "+<::/0"], UDP, remote, None))
                .contains(what)
        );
    }
    assert_eq!(decide(&wide, UDP, "224.0.0.251", 5353).reason, Reason::Multicast);
    assert_eq!(decide(&wide, UDP, "255.255.255.255", 67).reason, Reason::Multicast);
    assert_eq!(decide(&wide, TCP, "169.254.169.254", 80).reason, Reason::RuleDeny);
    for open in ["169.253.255.255", "169.255.0.0", "223.255.255.255", "240.0.0.0", "255.255.255.254"] {
        assert_eq!(decide(&wide, UDP, open, 53), allow(1), "{open}");
    }
}

#[test]
fn the_exact_address_opens_what_it_names_and_no_more() {
    let rules = ["+>0.0.0.0/0", "+>tcp:169.254.169.254:80", "+>224.0.0.251", "+>169.254.169.254/31:443"];
    assert_eq!(decide(&rules, TCP, "169.254.169.254", 80), allow(2));
    assert!(guard(decide(&rules, TCP, "169.254.169.254", 443)).contains("metadata"));
    assert!(guard(decide(&rules, UDP, "169.254.169.254", 80)).contains("metadata"));
    assert!(guard(decide(&rules, TCP, "169.254.169.253", 80)).contains("link-local"));
    assert_eq!(decide(&rules, UDP, "224.0.0.251", 5353), allow(3));
    let denied = ["+>169.254.169.254", "->169.254.0.0/16"];
    assert_eq!(decide(&denied, TCP, "169.254.169.254", 80), deny(2));
}
