//! How many pins there may be, and what is left of others.

use std::net::IpAddr;

use lattice_policy::{Match, Pin};
use lattice_verdicts::table::pin;

use super::*;

const NAMED: [u8; 4] = [203, 0, 114, 5];
const EVER: u64 = u64::MAX;

fn https(rule: u32) -> Match {
    line(Proto::Tcp, Some((443, 443)), Action::Allow, rule)
}

fn pins(fixture: &mut Fixture, pins: &[Pin]) -> Result<(), EbpfError> {
    fixture.harness.enforcer.pin(pins)
}

fn from(port: u16, to: [u8; 4]) -> Vec<u8> {
    ip4(6, OWN4, to, &tcp(port, 443, SYN, b""))
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
    let mut fixture = fixture.reload(&[OWN4.into()]);
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
