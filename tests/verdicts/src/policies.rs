//! Before the first policy, and what another one does to flows.

use lattice_policy::{Action, Proto, Reason, Table};

use crate::{Judge, counters::counted, packet::*, table::*};

pub fn nothing_passes_before_a_policy<J: Judge>() {
    let mut judge = J::new();
    assert_eq!(judge.egress(&syn4(TOOL, 8080)), Reason::NoPolicy);
    assert_eq!(judge.ingress(&ip4(17, TOOL, OWN4, &udp(53, 1111))), Reason::NoPolicy);
    assert_eq!(judge.egress(&fragment4(ip4(17, OWN4, TOOL, &[0; 64]), false, 9)), Reason::NoPolicy);
    judge.apply(&Table::default(), 1);
    assert_eq!(judge.egress(&syn4(TOOL, 8080)), Reason::DefaultDeny);
}

pub fn the_first_policy_is_whole_whatever_came_before<J: Judge>() {
    let mut judge = J::new();
    judge.pin(&[pin(TOOL, &[line(Proto::Any, None, Action::Allow, 1)], u64::MAX)]);
    assert_eq!(judge.egress(&syn4(TOOL, 8080)), Reason::NoPolicy, "a pin is no policy");
    judge.apply(&table(), 1);
    assert_eq!(judge.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    assert_eq!(judge.egress(&syn4(TOOL, 22)), Reason::DefaultDeny);
}

pub fn a_new_policy_is_in_force_at_the_next_packet<J: Judge>() {
    let mut judge = J::with(&table());
    assert_eq!(judge.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    // The same generation again, and more policies than an enforcer may have slots.
    for generation in [1, 1, 9, 5, 3, u32::MAX] {
        judge.apply(&table(), generation);
        assert_eq!(judge.ingress(&reply), Reason::Established, "allowed by the new one as well");
    }
    judge.apply(&Table::default(), 2);
    assert_eq!(judge.ingress(&reply), Reason::DefaultDeny);
    assert_eq!(judge.egress(&ip4(6, OWN4, TOOL, &tcp(1111, 8080, ACK, b"data"))), Reason::DefaultDeny);
    judge.apply(&table(), 3);
    assert_eq!(judge.ingress(&reply), Reason::DefaultDeny, "a flow that was cut stays cut");
}

pub fn a_flow_is_judged_anew_as_it_was_opened<J: Judge>() {
    let mut judge = J::with(&table());
    assert_eq!(judge.ingress(&ip4(6, CALLER, OWN4, &tcp(4000, 9000, SYN, b""))), Reason::RuleAllow);
    judge.apply(&table(), 2);
    let answer = ip4(6, OWN4, CALLER, &tcp(9000, 4000, ACK, b""));
    assert_eq!(judge.egress(&answer), Reason::Established);
    judge.apply(&Table { ingress: vec![], ..table() }, 3);
    assert_eq!(judge.egress(&answer), Reason::DefaultDeny, "its port 4000 is none that the agent may call");
}

pub fn a_flow_that_stays_belongs_to_the_rule_of_the_new_policy<J: Judge>() {
    let mut judge = J::with(&table());
    assert_eq!(judge.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let only = entry("192.0.2.1/32", &[line(Proto::Tcp, None, Action::Allow, 71)]);
    judge.apply(&Table { egress: vec![only], ingress: vec![] }, 2);
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    assert_eq!(judge.ingress(&reply), Reason::Established);
    assert_eq!(counted(&judge), [(71, 1, 40)], "counted from its own policy on");
}
