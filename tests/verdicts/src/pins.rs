//! Rules by name: what a name's address opens, for how long, and under which policy.

use lattice_policy::{Action, Match, Proto, Reason, Table};

use crate::{Judge, packet::*, table::*};

const NAMED: [u8; 4] = [203, 0, 114, 5];
const EVER: u64 = u64::MAX;
/// The end of a pin that is over.
const OVER: u64 = 1;

fn https(rule: u32) -> Match {
    line(Proto::Tcp, Some((443, 443)), Action::Allow, rule)
}

fn from(port: u16, to: [u8; 4]) -> Vec<u8> {
    ip4(6, OWN4, to, &tcp(port, 443, SYN, b""))
}

pub fn a_pin_opens_only_what_no_rule_denies<J: Judge>() {
    let mut judge = J::with(&table());
    let ping = line(Proto::Icmp, None, Action::Allow, 31);
    judge.pin(&[
        pin(NAMED, &[https(30), ping], EVER),
        pin(TOOL, &[https(30)], EVER),
        pin([203, 0, 113, 5], &[https(30)], EVER),
        pin([192, 0, 2, 66], &[https(30)], EVER),
        pin(v6("2001:db8::9"), &[https(30)], EVER),
    ]);
    for (packet, reason) in [
        (syn4(NAMED, 443), Reason::RuleAllow),
        (syn4(NAMED, 444), Reason::DefaultDeny),
        (syn4([203, 0, 114, 6], 443), Reason::DefaultDeny),
        (ip4(17, OWN4, NAMED, &udp(1111, 443)), Reason::DefaultDeny),
        (ip4(1, OWN4, NAMED, &icmp(8, 0, 1, b"")), Reason::RuleAllow),
        (ip4(1, OWN4, [203, 0, 113, 5], &icmp(8, 0, 1, b"")), Reason::DefaultDeny), // it names none but TCP
        (syn4(TOOL, 443), Reason::RuleAllow), // its prefix has rules, and none of them fits
        (syn4([203, 0, 113, 5], 443), Reason::RuleAllow), // likewise, in a set
        (syn4([192, 0, 2, 66], 443), Reason::RuleDeny),
        (ip6(6, OWN6, v6("2001:db8::9"), &tcp(1111, 443, SYN, b"")), Reason::RuleAllow),
        (ip6(6, OWN6, v6("2001:db8::a"), &tcp(1111, 443, SYN, b"")), Reason::DefaultDeny),
    ] {
        assert_eq!(judge.egress(&packet), reason, "{packet:x?}");
    }
    let call = ip4(6, NAMED, OWN4, &tcp(5000, 443, SYN, b""));
    assert_eq!(judge.ingress(&call), Reason::DefaultDeny, "a name does not let anybody in");
    assert_eq!(judge.told().iter().find(|flow| flow.dst == (NAMED, 443).into()).unwrap().rule.0, 30);
}

pub fn a_pin_for_everything_opens_only_what_no_rule_denies<J: Judge>() {
    let denied = entry("203.0.114.0/24", &[line(Proto::Tcp, Some((443, 443)), Action::Deny, 8)]);
    let mut judge = J::new();
    let any = [line(Proto::Any, None, Action::Allow, 31)];
    judge.apply_with(&Table { egress: vec![denied], ingress: vec![] }, &[pin(NAMED, &any, EVER)], 1);
    assert_eq!(judge.egress(&syn4(NAMED, 443)), Reason::RuleDeny);
    assert_eq!(judge.egress(&syn4(NAMED, 80)), Reason::RuleAllow, "where no line of the prefix fits");
}

pub fn the_end_of_a_pin_ends_no_flow<J: Judge>() {
    let mut judge = J::with(&table());
    judge.pin(&[pin(NAMED, &[https(30)], EVER)]);
    assert_eq!(judge.egress(&from(1, NAMED)), Reason::RuleAllow);
    judge.pin(&[pin(NAMED, &[https(30)], OVER)]);
    assert_eq!(judge.egress(&from(2, NAMED)), Reason::DefaultDeny);
    let next = ip4(6, OWN4, NAMED, &tcp(1, 443, ACK, b"data"));
    assert_eq!(judge.egress(&next), Reason::Established);
    judge.apply(&table(), 2);
    assert_eq!(judge.egress(&next), Reason::DefaultDeny, "as long as the policy stays");
}

pub fn the_last_pin_of_an_address_counts_as_a_whole<J: Judge>() {
    let mut judge = J::with(&table());
    let ssh = line(Proto::Tcp, Some((22, 22)), Action::Allow, 32);
    for round in 0..2 {
        judge.pin(&[pin(NAMED, &[https(30)], OVER), pin(NAMED, &[https(30)], EVER)]);
        assert_eq!(judge.egress(&from(round, NAMED)), Reason::RuleAllow);
        assert_eq!(judge.egress(&syn4(NAMED, 22)), Reason::DefaultDeny);
        judge.pin(&[pin(NAMED, &[ssh], EVER)]);
        assert_eq!(judge.egress(&from(10 + round, NAMED)), Reason::DefaultDeny);
        assert_eq!(judge.egress(&ip4(6, OWN4, NAMED, &tcp(20 + round, 22, SYN, b""))), Reason::RuleAllow);
    }
    // Also where they come with a policy, and the last is over.
    judge.apply_with(&table(), &[pin(NAMED, &[https(30)], EVER), pin(NAMED, &[ssh], OVER)], 2);
    assert_eq!(judge.egress(&from(30, NAMED)), Reason::DefaultDeny);
    assert_eq!(judge.egress(&ip4(6, OWN4, NAMED, &tcp(31, 22, SYN, b""))), Reason::DefaultDeny);
}

pub fn a_policy_has_no_pins_but_its_own<J: Judge>() {
    let mut judge = J::new();
    let other = [203, 0, 114, 6];
    let over = [203, 0, 114, 7];
    // More policies than an enforcer may have slots.
    for round in 0..6 {
        let ours = [pin(NAMED, &[https(30)], EVER), pin(over, &[https(30)], OVER)];
        judge.apply_with(&table(), &ours, 1);
        assert_eq!(judge.egress(&from(round, NAMED)), Reason::RuleAllow, "{round}");
        assert_eq!(judge.egress(&from(round, over)), Reason::DefaultDeny);
        assert_eq!(judge.egress(&from(round, other)), Reason::DefaultDeny);
        judge.apply_with(&table(), &[pin(other, &[https(30)], EVER)], 2);
        let next = ip4(6, OWN4, NAMED, &tcp(round, 443, ACK, b"data"));
        assert_eq!(judge.egress(&next), Reason::DefaultDeny, "the flow is judged by the new pins");
        assert_eq!(judge.egress(&from(round, other)), Reason::RuleAllow);
        for generation in 0..round.into() {
            judge.apply(&table(), generation);
            assert_eq!(judge.egress(&from(round, other)), Reason::DefaultDeny, "{round} {generation}");
        }
    }
}
