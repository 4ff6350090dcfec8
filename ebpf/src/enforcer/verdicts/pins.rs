//! Rules by name: what a name's address opens, for how long, and under which policy.

use std::net::IpAddr;

use lattice_policy::{Match, Pin};

use super::*;

const NAMED: [u8; 4] = [203, 0, 114, 5];
const EVER: u64 = u64::MAX;

fn https(rule: u32) -> Match {
    line(Proto::Tcp, Some((443, 443)), Action::Allow, rule)
}

fn pin(address: impl Into<IpAddr>, matches: &[Match], until_ns: u64) -> Pin {
    Pin { address: address.into(), matches: matches.to_vec(), until_ns }
}

fn pins(fixture: &mut Fixture, pins: &[Pin]) -> Result<(), EbpfError> {
    fixture.harness.enforcer.pin(pins)
}

fn from(port: u16, to: [u8; 4]) -> Vec<u8> {
    ip4(6, OWN4, to, &tcp(port, 443, SYN, b""))
}

#[test]
fn a_pin_opens_only_what_no_rule_denies() {
    let mut fixture = Fixture::with(&table());
    let ping = line(Proto::Icmp, None, Action::Allow, 31);
    pins(
        &mut fixture,
        &[
            pin(NAMED, &[https(30), ping], EVER),
            pin(TOOL, &[https(30)], EVER),
            pin([203, 0, 113, 5], &[https(30)], EVER),
            pin([192, 0, 2, 66], &[https(30)], EVER),
            pin(v6("2001:db8::9"), &[https(30)], EVER),
        ],
    )
    .unwrap();
    for (frame, reason) in [
        (syn4(NAMED, 443), Reason::RuleAllow),
        (syn4(NAMED, 444), Reason::DefaultDeny),
        (syn4([203, 0, 114, 6], 443), Reason::DefaultDeny),
        (ip4(17, OWN4, NAMED, &udp(1111, 443)), Reason::DefaultDeny),
        (ip4(1, OWN4, NAMED, &icmp(8, 0, 1, b"")), Reason::RuleAllow),
        (syn4(TOOL, 443), Reason::RuleAllow), // its prefix has rules, and none of them fits
        (syn4([203, 0, 113, 5], 443), Reason::RuleAllow), // likewise, in a set
        (syn4([192, 0, 2, 66], 443), Reason::RuleDeny),
        (ip6(6, v6(OWN6), v6("2001:db8::9"), &tcp(1111, 443, SYN, b"")), Reason::RuleAllow),
        (ip6(6, v6(OWN6), v6("2001:db8::a"), &tcp(1111, 443, SYN, b"")), Reason::DefaultDeny),
    ] {
        assert_eq!(fixture.egress(&frame), reason, "{frame:x?}");
    }
    let call = ip4(6, NAMED, OWN4, &tcp(5000, 443, SYN, b""));
    assert_eq!(fixture.ingress(&call), Reason::DefaultDeny, "a name does not let anybody in");
    assert_eq!(fixture.told().iter().find(|flow| flow.dst == (NAMED, 443).into()).unwrap().rule.0, 30);
}

#[test]
fn the_end_of_a_pin_ends_no_flow() {
    let mut fixture = Fixture::with(&table());
    pins(&mut fixture, &[pin(NAMED, &[https(30)], EVER)]).unwrap();
    assert_eq!(fixture.egress(&from(1, NAMED)), Reason::RuleAllow);
    pins(&mut fixture, &[pin(NAMED, &[https(30)], 1)]).unwrap();
    assert_eq!(fixture.egress(&from(2, NAMED)), Reason::DefaultDeny);
    let next = ip4(6, OWN4, NAMED, &tcp(1, 443, ACK, b"data"));
    assert_eq!(fixture.egress(&next), Reason::Established);
}

#[test]
fn the_last_pin_of_an_address_counts_as_a_whole() {
    let mut fixture = Fixture::with(&table());
    let ssh = line(Proto::Tcp, Some((22, 22)), Action::Allow, 32);
    for round in 0..2 {
        pins(&mut fixture, &[pin(NAMED, &[https(30)], 1), pin(NAMED, &[https(30)], EVER)]).unwrap();
        assert_eq!(fixture.egress(&from(round, NAMED)), Reason::RuleAllow);
        assert_eq!(fixture.egress(&syn4(NAMED, 22)), Reason::DefaultDeny);
        pins(&mut fixture, &[pin(NAMED, &[ssh], EVER)]).unwrap();
        assert_eq!(fixture.egress(&from(10 + round, NAMED)), Reason::DefaultDeny);
        assert_eq!(fixture.egress(&ip4(6, OWN4, NAMED, &tcp(20 + round, 22, SYN, b""))), Reason::RuleAllow);
    }
}

#[test]
fn a_policy_has_no_pins_but_its_own() {
    let mut fixture = Fixture::new();
    let other = [203, 0, 114, 6];
    let over = [203, 0, 114, 7];
    // More policies than slots.
    for round in 0..6 {
        let ours = [pin(NAMED, &[https(30)], EVER), pin(over, &[https(30)], 1)];
        fixture.apply_with(&table(), &ours, 1);
        assert_eq!(fixture.egress(&from(round, NAMED)), Reason::RuleAllow, "{round}");
        assert_eq!(fixture.egress(&from(round, over)), Reason::DefaultDeny);
        assert_eq!(fixture.egress(&from(round, other)), Reason::DefaultDeny);
        fixture.apply_with(&table(), &[pin(other, &[https(30)], EVER)], 2);
        let next = ip4(6, OWN4, NAMED, &tcp(round, 443, ACK, b"data"));
        assert_eq!(fixture.egress(&next), Reason::DefaultDeny, "the flow is judged by the new pins");
        assert_eq!(fixture.egress(&from(round, other)), Reason::RuleAllow);
        for generation in 0..round.into() {
            fixture.apply(&table(), generation);
            assert_eq!(fixture.egress(&from(round, other)), Reason::DefaultDeny, "{round} {generation}");
        }
    }
}

#[test]
fn what_another_policy_left_in_the_slot_opens_nothing() {
    let mut fixture = Fixture::with(&table());
    let next_in_the_same_slot = 1 + crate::abi::SLOTS;
    let left = [pin(NAMED, &[https(30)], EVER)];
    fixture.harness.enforcer.pinned.fill(next_in_the_same_slot, &left).unwrap();
    assert_eq!(fixture.egress(&from(1, NAMED)), Reason::DefaultDeny);
    pins(&mut fixture, &left).unwrap();
    assert_eq!(fixture.egress(&from(2, NAMED)), Reason::RuleAllow);
}

#[test]
fn pins_are_bounded_and_those_that_are_over_make_room() {
    let mut fixture = Fixture::with(&table());
    let numbered = |n: usize| IpAddr::from([100, 64, (n >> 8) as u8, n as u8]);
    let many = |ends: u64| (0..Pin::MAX).map(|n| pin(numbered(n), &[https(30)], ends)).collect::<Vec<_>>();
    pins(&mut fixture, &many(EVER)).unwrap();
    pins(&mut fixture, &many(EVER)).unwrap();
    let one_more = [pin(NAMED, &[https(30)], EVER)];
    assert!(matches!(pins(&mut fixture, &one_more), Err(EbpfError::TooManyPins(4097))));
    assert_eq!(fixture.egress(&from(1, NAMED)), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&from(1, [100, 64, 15, 255])), Reason::RuleAllow);
    let too_many = [&many(EVER)[..], &one_more].concat();
    assert!(matches!(pins(&mut fixture, &too_many), Err(EbpfError::TooManyPins(4097))));
    let refused = fixture.harness.enforcer.apply(&Table::default(), &too_many, 2);
    assert!(matches!(refused, Err(EbpfError::TooManyPins(4097))));
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow, "the old policy is in force");
    let seven = [pin(NAMED, &[https(30); 7], EVER)];
    assert!(matches!(pins(&mut fixture, &seven), Err(EbpfError::PinTooLong { lines: 7, .. })));

    // The next loader knows what is pinned, and a policy as full as this one has room beside it.
    let Fixture { harness, events } = fixture;
    drop(events);
    let mut fixture = Fixture::of(harness.reload(&[OWN4.into()]).unwrap());
    assert!(matches!(pins(&mut fixture, &one_more), Err(EbpfError::TooManyPins(4097))));
    for generation in 3..6 {
        fixture.apply_with(&table(), &many(EVER), generation);
    }
    assert!(matches!(pins(&mut fixture, &one_more), Err(EbpfError::TooManyPins(4097))));

    pins(&mut fixture, &many(1)[..2]).unwrap();
    pins(&mut fixture, &[one_more[0].clone(), pin(numbered(1), &[https(30)], EVER)]).unwrap();
    assert_eq!(fixture.egress(&from(2, NAMED)), Reason::RuleAllow);
    assert_eq!(fixture.egress(&from(2, [100, 64, 0, 0])), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&from(2, [100, 64, 0, 1])), Reason::RuleAllow);
    assert!(matches!(pins(&mut fixture, &[pin(OWN4, &[], EVER)]), Err(EbpfError::TooManyPins(4097))));
}
