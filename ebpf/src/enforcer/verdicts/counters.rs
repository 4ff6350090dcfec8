//! What each rule is said to have decided about.

use lattice_policy::{Counter, RuleId};

use super::*;

fn counters(fixture: &Fixture) -> Vec<(u32, u64, u64)> {
    let counters = fixture.harness.enforcer.counters().unwrap();
    counters.into_iter().map(|(RuleId(rule), Counter { packets, bytes })| (rule, packets, bytes)).collect()
}

#[test]
fn packets_of_a_flow_are_counted_for_the_rule_that_let_it_in() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(counters(&fixture), []);
    fixture.egress(&syn4(TOOL, 8080));
    fixture.ingress(&ip4(6, TOOL, OWN4, &tcp(8080, 1111, SYN | ACK, b"")));
    fixture.egress(&ip4(6, OWN4, TOOL, &tcp(1111, 8080, ACK, b"hello")));
    let error = icmp(3, 4, 0, &syn4(TOOL, 8080)[ETHERNET..ETHERNET + 28]);
    fixture.ingress(&ip4(1, [198, 51, 100, 9], OWN4, &error));
    // A datagram in two fragments.
    fixture.egress(&fragment4(ip4(17, OWN4, TOOL, &udp(1, 53)), true, 0));
    fixture.egress(&fragment4(ip4(17, OWN4, TOOL, &[0; 64]), false, 100));
    fixture.ingress(&ip4(6, [192, 0, 2, 7], OWN4, &tcp(4000, 9000, SYN, b"")));
    assert_eq!(counters(&fixture), [(1, 4, 40 + 40 + 45 + 56), (2, 2, 40 + 84), (9, 1, 40)]);
}

#[test]
fn denied_packets_are_counted_for_the_rule_or_for_none() {
    let mut fixture = Fixture::with(&table());
    for _ in 0..3 {
        fixture.egress(&syn4([192, 0, 2, 66], 8080));
    }
    fixture.egress(&syn4(TOOL, 22));
    fixture.ingress(&ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b"")));
    // What no rule can name is no rule's.
    fixture.egress(&ip4(132, OWN4, TOOL, &[0; 20]));
    fixture.egress(&ip4(17, OWN4, [224, 0, 0, 251], &udp(1, 5353)));
    assert_eq!(counters(&fixture), [(0, 2, 80), (4, 3, 120)]);
}

#[test]
fn a_new_policy_begins_at_nothing_and_flows_go_on_under_their_new_rule() {
    let mut fixture = Fixture::with(&table());
    let built_in = lattice_policy::builtin::FIRST.0;
    let mut renumbered = table();
    for m in renumbered.egress.iter_mut().flat_map(|entry| &mut entry.matches) {
        m.rule.0 += 600;
    }
    renumbered.egress[1].matches[0].rule.0 = built_in;
    let next = ip4(6, OWN4, TOOL, &tcp(1111, 8080, ACK, b""));
    fixture.egress(&syn4(TOOL, 8080));
    fixture.egress(&syn4(TOOL, 22));
    for round in 0..3 {
        assert_eq!(fixture.egress(&next), Reason::Established);
        assert_eq!(
            counters(&fixture),
            if round == 0 { vec![(0, 1, 40), (1, 2, 80)] } else { vec![(1, 1, 40)] }
        );
        fixture.apply(&renumbered, 2);
        assert_eq!(counters(&fixture), []);
        assert_eq!(fixture.egress(&next), Reason::Established);
        fixture.egress(&syn4([192, 0, 2, 66], 8080));
        assert_eq!(counters(&fixture), [(601, 1, 40), (built_in, 1, 40)]);
        fixture.apply(&table(), 3);
        assert_eq!(counters(&fixture), []);
    }
}
