//! Flows, their replies, and the ICMP errors about them.

use lattice_policy::{Reason, Table};

use crate::{Judge, packet::*, table::*};

pub fn replies_pass_and_openers_are_judged<J: Judge>() {
    let mut judge = J::with(&table());
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, SYN | ACK, b""));
    assert_eq!(judge.ingress(&reply), Reason::DefaultDeny);
    assert_eq!(judge.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    assert_eq!(judge.ingress(&reply), Reason::Established);
    let opener = ip4(6, TOOL, OWN4, &tcp(8080, 1111, SYN, b""));
    assert_eq!(judge.ingress(&opener), Reason::DefaultDeny, "not a reply");
    let other = ip4(6, TOOL, OWN4, &tcp(8080, 1112, ACK, b""));
    assert_eq!(judge.ingress(&other), Reason::DefaultDeny, "other port");

    let answer = ip4(6, OWN4, CALLER, &tcp(9000, 4000, SYN | ACK, b""));
    assert_eq!(judge.egress(&answer), Reason::DefaultDeny);
    assert_eq!(judge.ingress(&ip4(6, CALLER, OWN4, &tcp(4000, 9000, SYN, b""))), Reason::RuleAllow);
    assert_eq!(judge.egress(&answer), Reason::Established);
    let opener = ip4(6, OWN4, CALLER, &tcp(9000, 4000, SYN, b""));
    assert_eq!(judge.egress(&opener), Reason::DefaultDeny, "not a reply");

    assert_eq!(judge.egress(&ip4(1, OWN4, TOOL, &icmp(8, 0, 77, b""))), Reason::RuleAllow);
    assert_eq!(judge.ingress(&ip4(1, TOOL, OWN4, &icmp(0, 0, 77, b""))), Reason::Established);
    assert_eq!(judge.ingress(&ip4(1, TOOL, OWN4, &icmp(8, 0, 77, b""))), Reason::DefaultDeny);
    assert_eq!(judge.ingress(&ip4(1, TOOL, OWN4, &icmp(0, 0, 78, b""))), Reason::DefaultDeny);
}

pub fn other_icmp_is_no_echo<J: Judge>() {
    let mut judge = J::with(&table());
    assert_eq!(judge.egress(&ip4(1, OWN4, TOOL, &icmp(13, 0, 5, &[0; 12]))), Reason::RuleAllow);
    assert_eq!(judge.ingress(&ip4(1, TOOL, OWN4, &icmp(0, 0, 13, b""))), Reason::DefaultDeny);
    assert_eq!(judge.ingress(&ip4(1, TOOL, OWN4, &icmp(14, 0, 5, &[0; 12]))), Reason::DefaultDeny);
}

pub fn icmp_errors_pass_only_about_allowed_flows<J: Judge>() {
    let mut judge = J::with(&table());
    let sent = syn4(TOOL, 8080);
    let error = ip4(1, ROUTER, OWN4, &icmp(3, 4, 0, &sent[..28]));
    assert_eq!(judge.ingress(&error), Reason::DefaultDeny);
    assert_eq!(judge.egress(&sent), Reason::RuleAllow);
    assert_eq!(judge.ingress(&error), Reason::Established);
    let mut optional = error.clone();
    optional[28] = 0x46;
    assert_eq!(judge.ingress(&optional), Reason::DefaultDeny, "ports behind options are none of these");
    let cut = ip4(1, ROUTER, OWN4, &icmp(3, 4, 0, &sent[..23]));
    assert_eq!(judge.ingress(&cut), Reason::DefaultDeny, "a quote without ports");

    // The agent's own error about what it got: to its sender, and to nobody else.
    let got = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    let quote = icmp(3, 3, 0, &got[..28]);
    assert_eq!(judge.egress(&ip4(1, OWN4, TOOL, &quote)), Reason::Established);
    assert_eq!(judge.egress(&ip4(1, OWN4, ROUTER, &quote)), Reason::DefaultDeny);

    let sent = ip6(17, OWN6, TOOL6, &udp(5, 53));
    let error = ip6(58, v6("2001:db8:9::1"), OWN6, &icmp(2, 0, 0, &sent[..48]));
    assert_eq!(judge.ingress(&error), Reason::DefaultDeny);
    assert_eq!(judge.egress(&sent), Reason::RuleAllow);
    assert_eq!(judge.ingress(&error), Reason::Established);

    judge.apply(&Table::default(), 2);
    assert_eq!(judge.ingress(&error), Reason::DefaultDeny, "about a flow that was cut");
}

pub fn an_error_goes_to_the_address_it_is_about<J: Judge>() {
    let other = [10, 42, 0, 3];
    let mut judge = J::with_own(&[OWN4.into(), other.into()]);
    judge.apply(&table(), 1);
    let sent = syn4(TOOL, 8080);
    assert_eq!(judge.egress(&sent), Reason::RuleAllow);
    let error = |to| ip4(1, ROUTER, to, &icmp(3, 4, 0, &sent[..28]));
    assert_eq!(judge.ingress(&error(other)), Reason::DefaultDeny);
    assert_eq!(judge.ingress(&error(OWN4)), Reason::Established);
}

pub fn a_scan_pushes_no_allowed_flow_out<J: Judge>() {
    let mut judge = J::with(&table());
    assert_eq!(judge.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    // More than there is room for.
    for port in 0..20_000 {
        let scan = ip4(6, OWN4, [198, 51, 100, 1], &tcp(port, 22, SYN, b""));
        assert_eq!(judge.egress(&scan), Reason::DefaultDeny);
    }
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    assert_eq!(judge.ingress(&reply), Reason::Established);
}
