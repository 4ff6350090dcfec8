//! How long flows and fragments are kept, and what is decided about them.

use lattice_policy::{Action, Direction, Proto, Reason, RuleId, Table};
use lattice_verdicts::{Judge as _, packet::*, table::*};

use crate::fixture::Fixture;

#[test]
fn a_datagram_is_not_waited_for_longer_than_a_receiver_would() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(fixture.egress(&fragment4(ip4(17, OWN4, TOOL, &udp(1, 53)), true, 0)), Reason::RuleAllow);
    let later = fragment4(ip4(17, OWN4, TOOL, &[0; 64]), false, 100);
    fixture.pass(60);
    assert_eq!(fixture.egress(&later), Reason::Established);
    fixture.now_ns += 1;
    assert_eq!(fixture.egress(&later), Reason::Fragment);
}

#[test]
fn an_idle_flow_is_over() {
    for (sent, reply, seconds) in [
        (syn4(TOOL, 8080), ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b"")), 7440),
        (ip4(17, OWN4, TOOL, &udp(1111, 53)), ip4(17, TOOL, OWN4, &udp(53, 1111)), 300),
        (ip4(1, OWN4, TOOL, &icmp(8, 0, 5, b"")), ip4(1, TOOL, OWN4, &icmp(0, 0, 5, b"")), 60),
        (ip6(58, OWN6, TOOL6, &icmp(128, 0, 5, b"")), ip6(58, TOOL6, OWN6, &icmp(129, 0, 5, b"")), 60),
    ] {
        let mut fixture = Fixture::with(&table());
        assert_eq!(fixture.egress(&sent), Reason::RuleAllow);
        for _ in 0..3 {
            fixture.pass(seconds);
            assert_eq!(fixture.ingress(&reply), Reason::Established, "each packet keeps it alive");
        }
        fixture.pass(seconds);
        fixture.now_ns += 1;
        assert_eq!(fixture.ingress(&reply), Reason::DefaultDeny);
        assert_eq!(fixture.egress(&sent), Reason::RuleAllow, "a new one");
    }
}

#[test]
fn the_flow_that_was_idle_for_longest_gives_way() {
    let mut fixture = Fixture::with(&table());
    let flow = |from: u16| ip4(6, OWN4, TOOL, &tcp(from, 8080, SYN, b""));
    let reply = |to: u16| ip4(6, TOOL, OWN4, &tcp(8080, to, ACK, b""));
    for from in [1, 2] {
        assert_eq!(fixture.egress(&flow(from)), Reason::RuleAllow);
    }
    fixture.pass(2);
    assert_eq!(fixture.ingress(&reply(1)), Reason::Established);
    // With the two, one more than there is room for.
    for from in 0..16_383 {
        assert_eq!(fixture.egress(&flow(10_000 + from)), Reason::RuleAllow);
    }
    assert_eq!(fixture.ingress(&reply(2)), Reason::DefaultDeny, "the oldest");
    assert_eq!(fixture.ingress(&reply(1)), Reason::Established, "used since");
    assert_eq!(fixture.ingress(&reply(10_000)), Reason::Established);
}

#[test]
fn an_established_flow_names_its_rule() {
    let mut fixture = Fixture::with(&table());
    fixture.egress(&syn4(TOOL, 8080));
    let only = entry("192.0.2.1/32", &[line(Proto::Tcp, None, Action::Allow, 71)]);
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    for (table, rule) in [(table(), 1), (Table { egress: vec![only], ingress: vec![] }, 71)] {
        fixture.apply(&table, 2);
        let decision = fixture.decide(Direction::Ingress, &reply);
        assert_eq!((decision.reason, decision.rule), (Reason::Established, RuleId(rule)));
    }
}
