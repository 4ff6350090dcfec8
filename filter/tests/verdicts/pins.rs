//! Allow rules by name.

use lattice_policy::{Action, Direction, Pin, Proto, Reason, RuleId, Table};

use crate::{fixture::*, packet::*};

const NAMED: [u8; 4] = [198, 51, 100, 7];

fn https() -> [lattice_policy::Match; 1] {
    [line(Proto::Tcp, Some((443, 443)), Action::Allow, 31)]
}

#[test]
fn a_pin_opens_what_it_names_until_it_is_over() {
    let mut fixture = Fixture::with(&table());
    let until = fixture.now_ns + 10;
    fixture.filter.pin(&[pin("198.51.100.7", &https(), until), pin("2001:db9::7", &https(), until)]);
    let decision = fixture.decide(Direction::Egress, &syn4(NAMED, 443));
    assert_eq!((decision.reason, decision.rule), (Reason::RuleAllow, RuleId(31)));
    assert_eq!(fixture.egress(&syn4(NAMED, 444)), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&ip4(17, OWN4, NAMED, &udp(1111, 443))), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&ip4(1, OWN4, NAMED, &icmp(8, 0, 1, b""))), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&syn4([198, 51, 100, 8], 443)), Reason::DefaultDeny);
    let inward = ip4(6, NAMED, OWN4, &tcp(5000, 443, SYN, b""));
    assert_eq!(fixture.ingress(&inward), Reason::DefaultDeny, "for egress only");

    let data = ip4(6, OWN4, NAMED, &tcp(1111, 443, ACK, b"data"));
    fixture.now_ns = until;
    assert_eq!(fixture.egress(&data), Reason::Established, "a flow lives on after its pin");
    let another = ip4(6, OWN4, NAMED, &tcp(1112, 443, SYN, b""));
    assert_eq!(fixture.egress(&another), Reason::DefaultDeny, "but opens no other");
    fixture.apply(&table(), 2);
    assert_eq!(fixture.egress(&data), Reason::DefaultDeny, "as long as the policy stays");
}

#[test]
fn a_pin_opens_nothing_that_a_rule_denies() {
    let denied = entry("198.51.100.0/24", &[line(Proto::Tcp, Some((443, 443)), Action::Deny, 8)]);
    let table = Table { egress: vec![denied], ingress: vec![] };
    let mut fixture = Fixture::new();
    let any = [line(Proto::Any, None, Action::Allow, 31)];
    fixture.filter.apply(&table, &[pin("198.51.100.7", &any, u64::MAX)], 1);
    assert_eq!(fixture.egress(&syn4(NAMED, 443)), Reason::RuleDeny);
    assert_eq!(fixture.egress(&syn4(NAMED, 80)), Reason::RuleAllow, "where no line of the prefix fits");
}

#[test]
fn pins_are_replaced_by_address_and_with_the_policy() {
    let mut fixture = Fixture::with(&Table::default());
    let http = [line(Proto::Tcp, Some((80, 80)), Action::Allow, 32)];
    fixture.filter.pin(&[pin("198.51.100.7", &https(), u64::MAX)]);
    fixture.filter.pin(&[pin("198.51.100.7", &http, u64::MAX)]);
    assert_eq!(fixture.egress(&syn4(NAMED, 443)), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&syn4(NAMED, 80)), Reason::RuleAllow);
    fixture.filter.apply(&Table::default(), &[pin("198.51.100.7", &https(), u64::MAX)], 2);
    assert_eq!(fixture.egress(&syn4(NAMED, 80)), Reason::DefaultDeny, "judged anew");
    assert_eq!(fixture.egress(&syn4(NAMED, 443)), Reason::RuleAllow);
}

#[test]
fn the_pin_that_ends_first_gives_way() {
    let mut fixture = Fixture::with(&Table::default());
    let now = fixture.now_ns;
    let many = |n: usize| Pin {
        address: std::net::Ipv4Addr::from_bits(0xcb00_0000 + n as u32).into(),
        matches: https().to_vec(),
        until_ns: now + 1000 + n as u64,
    };
    fixture.filter.pin(&(0..Pin::MAX).map(many).collect::<Vec<_>>());
    assert_eq!(fixture.egress(&syn4([203, 0, 0, 0], 443)), Reason::RuleAllow);
    fixture.filter.pin(&[many(Pin::MAX)]);
    let opener = |last: u8| ip4(6, OWN4, [203, 0, 0, last], &tcp(2222, 443, SYN, b""));
    assert_eq!(fixture.egress(&opener(0)), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&opener(1)), Reason::RuleAllow);
    fixture.filter.pin(&[pin("198.51.100.7", &https(), now + 1)]);
    assert_eq!(fixture.egress(&syn4(NAMED, 443)), Reason::DefaultDeny, "it would have been the first to end");
    assert_eq!(fixture.egress(&opener(1)), Reason::Established);
}

#[test]
fn lines_beyond_the_limit_open_nothing() {
    let mut fixture = Fixture::with(&Table::default());
    let lines: Vec<_> = (0..=Pin::MAX_LINES as u16)
        .map(|n| line(Proto::Tcp, Some((100 + n, 100 + n)), Action::Allow, 1))
        .collect();
    fixture.filter.pin(&[pin("198.51.100.7", &lines, u64::MAX)]);
    assert_eq!(fixture.egress(&syn4(NAMED, 105)), Reason::RuleAllow);
    assert_eq!(fixture.egress(&syn4(NAMED, 106)), Reason::DefaultDeny);
}
