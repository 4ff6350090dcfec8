//! Events and counters.

use lattice_policy::{Action, Counter, Direction, Reason, RuleId};
use lattice_verdicts::{Judge as _, packet::*, table::*};

use crate::fixture::{Fixture, SECOND};

#[test]
fn a_denied_flow_is_told_again_when_a_second_has_passed() {
    let mut fixture = Fixture::with(&table());
    for (later, told) in [(0, true), (SECOND, false), (1, true)] {
        fixture.now_ns += later;
        fixture.egress(&syn4(TOOL, 22));
        let at: Vec<_> = fixture.told().iter().map(|flow| flow.at_ns).collect();
        assert_eq!(at, if told { vec![fixture.now_ns] } else { vec![] });
    }
}

#[test]
fn a_full_queue_is_counted_and_changes_no_verdict() {
    let mut fixture = Fixture::with(&table());
    for port in 0..6000 {
        assert_eq!(fixture.egress(&syn4([198, 51, 100, 1], port)), Reason::DefaultDeny);
    }
    assert!(fixture.filter.has_events());
    let told = fixture.told().len() as u64;
    assert!(!fixture.filter.has_events());
    assert_eq!((told, fixture.filter.lost()), (4096, 6000 - 4096));
    assert_eq!(fixture.egress(&syn4([198, 51, 100, 1], 6000)), Reason::DefaultDeny);
    assert_eq!(fixture.told().len(), 1, "it takes more when there is room");
}

#[test]
fn what_is_cut_from_one_packet_is_judged_and_told_once_and_counted_each() {
    let mut fixture = Fixture::with(&table());
    let mut judge = |packet: &[u8]| {
        let now = fixture.now_ns;
        fixture.filter.judge_alike(Direction::Egress, packet, 44, 62_000, now).reason
    };
    assert_eq!(judge(&syn4(TOOL, 8080)), Reason::RuleAllow);
    assert_eq!(judge(&syn4(TOOL, 81)), Reason::DefaultDeny);
    let count = Counter { packets: 44, bytes: 62_000 };
    assert_eq!(fixture.filter.counters(), [(RuleId::NONE, count), (RuleId(1), count)]);
    let told = fixture.told();
    assert_eq!(told.iter().map(|flow| flow.bytes).collect::<Vec<_>>(), [62_000, 62_000]);
}

#[test]
fn what_is_only_peeked_at_is_neither_told_nor_counted_nor_remembered() {
    let mut fixture = Fixture::with(&table());
    for _ in 0..3 {
        let allowed = fixture.filter.peek(Direction::Egress, &syn4(TOOL, 8080), fixture.now_ns);
        assert_eq!((allowed.action, allowed.reason), (Action::Allow, Reason::RuleAllow), "no flow is made");
        let denied = fixture.filter.peek(Direction::Egress, &syn4(TOOL, 22), fixture.now_ns);
        assert_eq!((denied.action, denied.reason), (Action::Deny, Reason::DefaultDeny));
    }
    assert_eq!((fixture.told(), fixture.filter.counters()), (vec![], vec![]));
    assert_eq!((Fixture::new().filter.generation(), fixture.filter.generation()), (0, 1));
}
