//! When a pin is over, and how many there may be.

use lattice_policy::{Action, Pin, Proto, Reason, Table};
use lattice_verdicts::{Judge as _, packet::*, table::*};

use crate::fixture::Fixture;

const NAMED: [u8; 4] = [198, 51, 100, 7];

fn https() -> [lattice_policy::Match; 1] {
    [line(Proto::Tcp, Some((443, 443)), Action::Allow, 31)]
}

#[test]
fn a_pin_opens_what_it_names_until_it_is_over() {
    let mut fixture = Fixture::with(&table());
    let until = fixture.now_ns + 10;
    fixture.filter.pin(&[pin(NAMED, &https(), until)]);
    fixture.now_ns = until - 1;
    assert_eq!(fixture.egress(&syn4(NAMED, 443)), Reason::RuleAllow);
    fixture.now_ns = until;
    let data = ip4(6, OWN4, NAMED, &tcp(1111, 443, ACK, b"data"));
    assert_eq!(fixture.egress(&data), Reason::Established, "a flow lives on after its pin");
    let another = ip4(6, OWN4, NAMED, &tcp(1112, 443, SYN, b""));
    assert_eq!(fixture.egress(&another), Reason::DefaultDeny, "but opens no other");
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
    fixture.filter.pin(&[pin(NAMED, &https(), now + 1)]);
    assert_eq!(fixture.egress(&syn4(NAMED, 443)), Reason::DefaultDeny, "it would have been the first to end");
    assert_eq!(fixture.egress(&opener(1)), Reason::Established);
}

#[test]
fn lines_beyond_the_limit_open_nothing() {
    let mut fixture = Fixture::with(&Table::default());
    let lines: Vec<_> = (0..=Pin::MAX_LINES as u16)
        .map(|n| line(Proto::Tcp, Some((100 + n, 100 + n)), Action::Allow, 1))
        .collect();
    fixture.filter.pin(&[pin(NAMED, &lines, u64::MAX)]);
    assert_eq!(fixture.egress(&syn4(NAMED, 105)), Reason::RuleAllow);
    assert_eq!(fixture.egress(&syn4(NAMED, 106)), Reason::DefaultDeny);
}
