//! What is told of verdicts.

use lattice_policy::{Action, Direction, Reason, RuleId};

use crate::{Judge, packet::*, table::*};

pub fn each_new_flow_is_told_and_a_denied_one_once_a_second<J: Judge>() {
    let mut judge = J::with(&table());
    for _ in 0..3 {
        judge.egress(&syn4(TOOL, 8080));
        judge.egress(&syn4(TOOL, 22));
    }
    judge.ingress(&ip4(17, TOOL, OWN4, &udp(53, 4444)));
    let told = judge.told();
    let said: Vec<_> =
        told.iter().map(|f| (f.direction, f.action, f.reason, f.rule.0, f.src, f.dst)).collect();
    let own = |port| (OWN4, port).into();
    let tool = |port| (TOOL, port).into();
    assert_eq!(
        said,
        [
            (Direction::Egress, Action::Allow, Reason::RuleAllow, 1, own(1111), tool(8080)),
            (Direction::Egress, Action::Deny, Reason::DefaultDeny, 0, own(1111), tool(22)),
            (Direction::Ingress, Action::Deny, Reason::DefaultDeny, 0, tool(53), own(4444)),
        ]
    );
    assert!(told.iter().all(|f| f.generation == 1 && f.at_ns > 0 && f.link == J::LINK));
    assert_eq!((told[0].proto, told[0].bytes), (6, 40));
}

pub fn what_cannot_be_read_is_told_as_far_as_it_was_read<J: Judge>() {
    let mut judge = J::new();
    let v6_short = ip6(6, OWN6, TOOL6, &[0; 4]);
    let headless = [&[0x45, 0][..], &[0; 38]].concat();
    for packet in [&headless, &ip4(132, OWN4, TOOL, &[0; 20]), &v6_short] {
        judge.egress(packet);
    }
    judge.egress(&ip4(1, OWN4, TOOL, &icmp(8, 0, 77, b"twelve bytes")));
    let told = judge.told();
    let said: Vec<_> =
        told.iter().map(|f| (f.reason, f.proto, f.src.to_string(), f.dst.to_string(), f.bytes)).collect();
    let expected = [
        (Reason::Malformed, 0, "0.0.0.0:0", "0.0.0.0:0", 40),
        (Reason::Protocol, 132, "10.42.0.2:0", "192.0.2.1:0", 40),
        (Reason::Malformed, 6, "[fd00::2]:0", "[2001:db8::1]:0", 44),
        (Reason::NoPolicy, 1, "10.42.0.2:0", "192.0.2.1:0", 40),
    ];
    let expected =
        expected.map(|(reason, proto, src, dst, bytes)| (reason, proto, src.into(), dst.into(), bytes));
    assert_eq!(said, expected);
    assert!(told.iter().all(|flow| flow.generation == 0 && flow.rule == RuleId::NONE));
}
