//! What each rule is said to have decided about.

use lattice_policy::{Counter, Reason, RuleId, Table};

use crate::{Judge, packet::*, table::*};

/// Rule, packets, bytes.
pub(crate) fn counted<J: Judge>(judge: &J) -> Vec<(u32, u64, u64)> {
    let counters = judge.counters();
    counters.into_iter().map(|(RuleId(rule), Counter { packets, bytes })| (rule, packets, bytes)).collect()
}

pub fn packets_of_a_flow_are_counted_for_the_rule_that_let_it_in<J: Judge>() {
    let mut judge = J::with(&table());
    assert_eq!(counted(&judge), []);
    judge.egress(&syn4(TOOL, 8080));
    judge.ingress(&ip4(6, TOOL, OWN4, &tcp(8080, 1111, SYN | ACK, b"")));
    judge.egress(&ip4(6, OWN4, TOOL, &tcp(1111, 8080, ACK, b"hello")));
    judge.ingress(&ip4(1, ROUTER, OWN4, &icmp(3, 4, 0, &syn4(TOOL, 8080)[..28])));
    // A datagram in two fragments, and an error about it.
    let sent = ip4(17, OWN4, TOOL, &udp(1, 53));
    judge.egress(&fragment4(sent.clone(), true, 0));
    judge.egress(&fragment4(ip4(17, OWN4, TOOL, &[0; 64]), false, 100));
    judge.ingress(&ip4(1, ROUTER, OWN4, &icmp(3, 4, 0, &sent[..28])));
    judge.ingress(&ip4(6, CALLER, OWN4, &tcp(4000, 9000, SYN, b"")));
    assert_eq!(counted(&judge), [(1, 4, 40 + 40 + 45 + 56), (2, 3, 40 + 84 + 56), (9, 1, 40)]);
}

pub fn denied_packets_are_counted_for_the_rule_or_for_none<J: Judge>() {
    let mut judge = J::with(&table());
    for _ in 0..3 {
        judge.egress(&syn4([192, 0, 2, 66], 8080));
    }
    judge.egress(&syn4(TOOL, 22));
    judge.ingress(&ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b"")));
    // What no rule can name is no rule's.
    judge.egress(&ip4(132, OWN4, TOOL, &[0; 20]));
    judge.egress(&ip4(17, OWN4, [224, 0, 0, 251], &udp(1, 5353)));
    assert_eq!(counted(&judge), [(0, 2, 80), (4, 3, 120)]);
}

pub fn a_new_policy_begins_at_nothing_and_flows_go_on_under_their_new_rule<J: Judge>() {
    let mut judge = J::with(&table());
    let built_in = lattice_policy::builtin::FIRST.0;
    let mut renumbered = table();
    for m in renumbered.egress.iter_mut().flat_map(|entry| &mut entry.matches) {
        m.rule.0 += 600;
    }
    renumbered.egress[1].matches[0].rule.0 = built_in;
    let next = ip4(6, OWN4, TOOL, &tcp(1111, 8080, ACK, b""));
    judge.egress(&syn4(TOOL, 8080));
    judge.egress(&syn4(TOOL, 22));
    for round in 0..3 {
        assert_eq!(judge.egress(&next), Reason::Established);
        assert_eq!(counted(&judge), if round == 0 { vec![(0, 1, 40), (1, 2, 80)] } else { vec![(1, 1, 40)] });
        judge.apply(&renumbered, 2);
        assert_eq!(counted(&judge), []);
        assert_eq!(judge.egress(&next), Reason::Established);
        judge.egress(&syn4([192, 0, 2, 66], 8080));
        assert_eq!(counted(&judge), [(601, 1, 40), (built_in, 1, 40)]);
        // Another policy of the same generation.
        judge.apply(&table(), 2);
        assert_eq!(counted(&judge), []);
    }
    judge.apply(&Table::default(), 3);
    judge.egress(&next);
    assert_eq!(counted(&judge), [(0, 1, 40)], "cut, and so no rule's");
}
