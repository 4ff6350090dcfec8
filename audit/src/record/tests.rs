use super::*;

fn link() -> Link {
    Link { epoch: 7, seq: 1, prev: "0".repeat(64) }
}

fn flow() -> Flow {
    Flow {
        timestamp: "2026-11-22T01:52:00.5Z".parse().unwrap(),
        src: "10.42.0.3:49152".parse().unwrap(),
        dst: "10.42.0.10:8080".parse().unwrap(),
        proto: 6,
        direction: Direction::Egress,
        action: Action::Allow,
        reason: Reason::RuleAllow,
        rule: RuleId(1),
        rule_text: Some("10.42.0.10/32:8080".into()),
        generation: 3,
        bytes: 60,
        name: None,
    }
}

#[test]
fn the_line_is_what_the_documentation_says() {
    let record = FlowRecord::new(&flow(), Class::Kernel, "demo-agent", link());
    let line = serde_json::to_string(&record).unwrap();
    let expected = concat!(
        r#"{"timestamp":"2026-11-22T01:52:00.500000Z","srcIP":"10.42.0.3","dstIP":"10.42.0.10","proto":"tcp","#,
        r#""dstPort":8080,"action":"allow","srcPort":49152,"direction":"egress","rule":"10.42.0.10/32:8080","#,
        r#""ruleId":1,"generation":3,"reason":"rule-allow","class":"kernel","agent":"demo-agent","epoch":7,"#,
        r#""seq":1,"bytes":60,"prev":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
    );
    assert_eq!(line, expected);
    assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), Entry::Flow(record));
}

#[test]
fn no_rule_is_null_and_mapped_addresses_are_ipv4() {
    let dst = "[::ffff:10.0.0.1]:0".parse().unwrap();
    let flow = Flow {
        dst,
        proto: 132,
        action: Action::Deny,
        reason: Reason::Protocol,
        rule: RuleId::NONE,
        rule_text: None,
        ..flow()
    };
    let value = serde_json::to_value(FlowRecord::new(&flow, Class::Netns, "a", link())).unwrap();
    assert_eq!(value["rule"], serde_json::Value::Null);
    assert_eq!(value["ruleId"], 0);
    assert_eq!(value["dstIP"], "10.0.0.1");
    assert_eq!(value["proto"], "132");
    assert_eq!(value["reason"], "protocol");
}

#[test]
fn icmp_is_named_in_its_own_family_only() {
    let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
    assert_eq!(proto_name(1, v4), "icmp");
    assert_eq!(proto_name(58, v6), "icmp");
    assert_eq!(proto_name(58, v4), "58");
    assert_eq!(proto_name(1, v6), "1");
    assert_eq!(proto_name(17, v6), "udp");
}

#[test]
fn a_gap_is_told_from_a_flow() {
    let gap = GapRecord {
        timestamp: Timestamp::UNIX_EPOCH,
        lost: 3,
        why: "disk \"full\"\n".into(),
        class: Class::Cooperative,
        agent: "a".into(),
        epoch: 1,
        seq: 2,
        prev: "0".repeat(64),
    };
    let line = serde_json::to_string(&gap).unwrap();
    assert!(!line.contains('\n'));
    assert!(line.starts_with(r#"{"timestamp":"1970-01-01T00:00:00.000000Z","lost":3,"#), "{line}");
    assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), Entry::Gap(gap));
}
