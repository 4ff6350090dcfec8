//! Flows, their replies and errors, fragments, and what a new policy does to them.

use lattice_filter::Filter;
use lattice_policy::{Action, Direction, Proto, Reason, RuleId, Table};

use crate::{fixture::*, packet::*};

#[test]
fn later_fragments_follow_their_first() {
    let mut fixture = Fixture::with(&table());
    let later4 = fragment4(ip4(17, OWN4, TOOL, &[0; 64]), false, 100);
    assert_eq!(fixture.egress(&later4), Reason::Fragment, "its first was not seen");
    assert_eq!(fixture.egress(&fragment4(ip4(17, OWN4, TOOL, &udp(1, 54)), true, 0)), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&later4), Reason::Fragment, "its first was denied");
    assert_eq!(fixture.egress(&fragment4(ip4(17, OWN4, TOOL, &udp(1, 53)), true, 0)), Reason::RuleAllow);
    assert_eq!(fixture.egress(&later4), Reason::Established);
    let other = fragment4(ip4(6, OWN4, TOOL, &[0; 64]), false, 100);
    assert_eq!(fixture.egress(&other), Reason::Fragment, "other protocol");
    assert_eq!(fixture.ingress(&fragment4(ip4(17, TOOL, OWN4, &[0; 64]), false, 100)), Reason::Fragment);

    let peer = v6("2001:db8::1");
    let fragment =
        |next, more, offset, payload: &[u8]| ip6(44, v6(OWN6), peer, &fragment6(next, more, offset, payload));
    assert_eq!(fixture.egress(&fragment(17, false, 100, &[0; 64])), Reason::Fragment);
    // Ports behind the end that the header claims: a receiver would take them from a later fragment.
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let mut padded = fragment(60, true, 0, &options);
    padded.extend(udp(1, 53));
    assert_eq!(fixture.egress(&padded), Reason::Malformed);
    assert_eq!(fixture.egress(&fragment(17, false, 100, &[0; 64])), Reason::Fragment);
    assert_eq!(fixture.egress(&fragment(17, true, 0, &udp(1, 53))), Reason::RuleAllow);
    assert_eq!(fixture.egress(&fragment(17, false, 100, &[0; 64])), Reason::Established);

    fixture.apply(&Table::default(), 2);
    assert_eq!(fixture.egress(&later4), Reason::Fragment, "allowed by an older policy");
}

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
fn replies_pass_and_openers_are_judged() {
    let mut fixture = Fixture::with(&table());
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, SYN | ACK, b""));
    assert_eq!(fixture.ingress(&reply), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    assert_eq!(fixture.ingress(&reply), Reason::Established);
    let opener = ip4(6, TOOL, OWN4, &tcp(8080, 1111, SYN, b""));
    assert_eq!(fixture.ingress(&opener), Reason::DefaultDeny, "not a reply");
    let other = ip4(6, TOOL, OWN4, &tcp(8080, 1112, ACK, b""));
    assert_eq!(fixture.ingress(&other), Reason::DefaultDeny, "other port");

    let peer = [192, 0, 2, 7];
    let answer = ip4(6, OWN4, peer, &tcp(9000, 4000, SYN | ACK, b""));
    assert_eq!(fixture.egress(&answer), Reason::DefaultDeny);
    assert_eq!(fixture.ingress(&ip4(6, peer, OWN4, &tcp(4000, 9000, SYN, b""))), Reason::RuleAllow);
    assert_eq!(fixture.egress(&answer), Reason::Established);
    let opener = ip4(6, OWN4, peer, &tcp(9000, 4000, SYN, b""));
    assert_eq!(fixture.egress(&opener), Reason::DefaultDeny, "not a reply");

    assert_eq!(fixture.egress(&ip4(1, OWN4, TOOL, &icmp(8, 0, 77, b""))), Reason::RuleAllow);
    assert_eq!(fixture.ingress(&ip4(1, TOOL, OWN4, &icmp(0, 0, 77, b""))), Reason::Established);
    assert_eq!(fixture.ingress(&ip4(1, TOOL, OWN4, &icmp(8, 0, 77, b""))), Reason::DefaultDeny);
    assert_eq!(fixture.ingress(&ip4(1, TOOL, OWN4, &icmp(0, 0, 78, b""))), Reason::DefaultDeny);
}

#[test]
fn other_icmp_is_no_echo() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(fixture.egress(&ip4(1, OWN4, TOOL, &icmp(13, 0, 5, &[0; 12]))), Reason::RuleAllow);
    assert_eq!(fixture.ingress(&ip4(1, TOOL, OWN4, &icmp(0, 0, 13, b""))), Reason::DefaultDeny);
    assert_eq!(fixture.ingress(&ip4(1, TOOL, OWN4, &icmp(14, 0, 5, &[0; 12]))), Reason::DefaultDeny);
}

#[test]
fn icmp_errors_pass_only_about_allowed_flows() {
    let mut fixture = Fixture::with(&table());
    let router = [198, 51, 100, 9];
    let sent = syn4(TOOL, 8080);
    let error = ip4(1, router, OWN4, &icmp(3, 4, 0, &sent[..28]));
    assert_eq!(fixture.ingress(&error), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&sent), Reason::RuleAllow);
    assert_eq!(fixture.ingress(&error), Reason::Established);
    let mut optional = error.clone();
    optional[28] = 0x46;
    assert_eq!(fixture.ingress(&optional), Reason::DefaultDeny, "ports behind options are none of these");
    let cut = ip4(1, router, OWN4, &icmp(3, 4, 0, &sent[..23]));
    assert_eq!(fixture.ingress(&cut), Reason::DefaultDeny, "a quote without ports");

    // The agent's own error about what it got: to its sender, and to nobody else.
    let got = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    let quote = icmp(3, 3, 0, &got[..28]);
    assert_eq!(fixture.egress(&ip4(1, OWN4, TOOL, &quote)), Reason::Established);
    assert_eq!(fixture.egress(&ip4(1, OWN4, router, &quote)), Reason::DefaultDeny);

    let sent = ip6(17, v6(OWN6), v6("2001:db8::1"), &udp(5, 53));
    let error = ip6(58, v6("2001:db8:9::1"), v6(OWN6), &icmp(2, 0, 0, &sent[..48]));
    assert_eq!(fixture.ingress(&error), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&sent), Reason::RuleAllow);
    assert_eq!(fixture.ingress(&error), Reason::Established);

    fixture.apply(&Table::default(), 2);
    assert_eq!(fixture.ingress(&error), Reason::DefaultDeny, "about a flow that was cut");
}

#[test]
fn an_error_goes_to_the_address_it_is_about() {
    let other = [10, 42, 0, 3];
    let mut fixture = Fixture { filter: Filter::new(vec![OWN4.into(), other.into()]), now_ns: 0 };
    fixture.apply(&table(), 1);
    let sent = syn4(TOOL, 8080);
    assert_eq!(fixture.egress(&sent), Reason::RuleAllow);
    let error = |to| ip4(1, [198, 51, 100, 9], to, &icmp(3, 4, 0, &sent[..28]));
    assert_eq!(fixture.ingress(&error(other)), Reason::DefaultDeny);
    assert_eq!(fixture.ingress(&error(OWN4)), Reason::Established);
}

#[test]
fn what_a_rule_denies_is_denied_again() {
    let mut fixture = Fixture::with(&table());
    let flags = [SYN, SYN, ACK, RST];
    for packet in flags.map(|flags| ip4(6, OWN4, [192, 0, 2, 66], &tcp(1111, 8080, flags, b""))) {
        assert_eq!(fixture.egress(&packet), Reason::RuleDeny);
    }
}

#[test]
fn a_flow_is_judged_anew_as_it_was_opened() {
    let mut fixture = Fixture::with(&table());
    let peer = [192, 0, 2, 7];
    assert_eq!(fixture.ingress(&ip4(6, peer, OWN4, &tcp(4000, 9000, SYN, b""))), Reason::RuleAllow);
    fixture.apply(&table(), 2);
    let answer = ip4(6, OWN4, peer, &tcp(9000, 4000, ACK, b""));
    assert_eq!(fixture.egress(&answer), Reason::Established);
    fixture.apply(&Table { ingress: vec![], ..table() }, 3);
    assert_eq!(fixture.egress(&answer), Reason::DefaultDeny, "its port 4000 is none that the agent may call");
}

#[test]
fn a_new_policy_is_in_force_at_the_next_packet() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    for generation in [1, 1, 9, 5, 3, u32::MAX] {
        fixture.apply(&table(), generation);
        assert_eq!(fixture.ingress(&reply), Reason::Established, "allowed by the new one as well");
    }
    fixture.apply(&Table::default(), 2);
    assert_eq!(fixture.ingress(&reply), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&ip4(6, OWN4, TOOL, &tcp(1111, 8080, ACK, b"data"))), Reason::DefaultDeny);
    fixture.apply(&table(), 3);
    assert_eq!(fixture.ingress(&reply), Reason::DefaultDeny, "a flow that was cut stays cut");
}

#[test]
fn a_flow_that_stays_belongs_to_the_rule_of_the_new_policy() {
    let mut fixture = Fixture::with(&table());
    fixture.egress(&syn4(TOOL, 8080));
    let only = entry("192.0.2.1/32", &[line(Proto::Tcp, None, Action::Allow, 71)]);
    fixture.apply(&Table { egress: vec![only], ingress: vec![] }, 2);
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    let decision = fixture.decide(Direction::Ingress, &reply);
    assert_eq!((decision.reason, decision.rule), (Reason::Established, RuleId(71)));
    let told: Vec<_> = fixture.filter.counters().into_iter().map(|(rule, n)| (rule.0, n.packets)).collect();
    assert_eq!(told, [(71, 1)], "counted from its own policy on");
}

#[test]
fn an_idle_flow_is_over() {
    let peer = v6("2001:db8::1");
    for (sent, reply, seconds) in [
        (syn4(TOOL, 8080), ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b"")), 7440),
        (ip4(17, OWN4, TOOL, &udp(1111, 53)), ip4(17, TOOL, OWN4, &udp(53, 1111)), 300),
        (ip4(1, OWN4, TOOL, &icmp(8, 0, 5, b"")), ip4(1, TOOL, OWN4, &icmp(0, 0, 5, b"")), 60),
        (ip6(58, v6(OWN6), peer, &icmp(128, 0, 5, b"")), ip6(58, peer, v6(OWN6), &icmp(129, 0, 5, b"")), 60),
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
fn a_scan_pushes_no_allowed_flow_out() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    for port in 0..=u16::MAX {
        let scan = ip4(6, OWN4, [198, 51, 100, 1], &tcp(port, 22, SYN, b""));
        assert_eq!(fixture.egress(&scan), Reason::DefaultDeny);
    }
    assert_eq!(fixture.ingress(&reply), Reason::Established);
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
