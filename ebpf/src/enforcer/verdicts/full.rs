//! What happens when a table of the kernel is full: verdicts stay, and what was left out is counted.

use super::*;
use crate::abi;

#[test]
fn a_full_ring_is_counted_and_changes_no_verdict() {
    let mut fixture = Fixture::with(&table());
    for port in 0..4000 {
        assert!(matches!(fixture.run(Direction::Egress, &syn4([198, 51, 100, 1], port)), Outcome::Answer(_)));
    }
    let lost = fixture.harness.enforcer.lost().unwrap();
    assert!(lost > 0);
    assert_eq!(fixture.told().len() as u64 + lost, 4000);
}

#[test]
fn a_flood_of_denied_flows_is_denied_and_told_to_the_last() {
    let mut fixture = Fixture::with(&table());
    let mut told = 0;
    // More than DENIED holds: the first ones are told again sooner, and nothing worse.
    for port in 0..6000 {
        let outcome = fixture.run(Direction::Egress, &syn4([198, 51, 100, 1], port));
        assert!(matches!(outcome, Outcome::Answer(_)), "{outcome:?}");
        told += fixture.told().len();
    }
    assert_eq!(told, 6000);
    assert_eq!(fixture.egress(&syn4([198, 51, 100, 1], 0)), Reason::DefaultDeny);
}

#[test]
fn fragments_whose_first_was_pushed_out_are_denied() {
    let mut fixture = Fixture::with(&table());
    let fragment = |id: u16, more, offset, payload: &[u8]| {
        let mut frame = fragment4(ip4(17, OWN4, TOOL, payload), more, offset);
        frame[4..6].copy_from_slice(&id.to_be_bytes());
        frame
    };
    for id in 0..5000 {
        let first = fixture.egress(&fragment(id, true, 0, &udp(1, 53)));
        assert_eq!(first, if id == 0 { Reason::RuleAllow } else { Reason::Established });
    }
    assert_eq!(fixture.egress(&fragment(4999, false, 100, &[0; 64])), Reason::Established);
    assert_eq!(fixture.egress(&fragment(0, false, 100, &[0; 64])), Reason::Fragment);
}

#[test]
fn more_flows_than_are_kept_lose_the_oldest() {
    let mut fixture = Fixture::with(&table());
    let flow = |n: u32| {
        let [_, net, a, b] = n.to_be_bytes();
        (
            ip4(17, OWN4, [192, 0, 2, 1 + net], &udp(u16::from_be_bytes([a, b]), 53)),
            [192, 0, 2, 1 + net],
            [a, b],
        )
    };
    for n in 1..40_000 {
        assert_eq!(fixture.run(Direction::Egress, &flow(n).0), Outcome::Pass);
    }
    let mut reply = |n| {
        let (_, peer, port) = flow(n);
        fixture.ingress(&ip4(17, peer, OWN4, &udp(53, u16::from_be_bytes(port))))
    };
    assert_eq!(reply(39_999), Reason::Established);
    assert_eq!(reply(1), Reason::DefaultDeny, "pushed out, and so no more a reply");
    assert_eq!(fixture.harness.enforcer.overflow().unwrap().untracked, 0);
}

#[test]
fn rules_without_room_for_a_counter_decide_all_the_same() {
    let mut fixture = Fixture::new();
    let rule = |port: u16| 1_000_000 + u32::from(port);
    let ports = 1..=abi::HIGH_COUNTERS as u16 + 8;
    let lines: Vec<_> =
        ports.clone().map(|port| line(Proto::Tcp, Some((port, port)), Action::Allow, rule(port))).collect();
    let table = Table { egress: vec![entry("192.0.2.0/24", &lines)], ingress: Vec::new() };
    for generation in [1, 2] {
        fixture.apply(&table, generation);
        for port in ports.clone() {
            let frame = ip4(6, OWN4, TOOL, &tcp(generation as u16, port, SYN, b""));
            assert_eq!(fixture.egress(&frame), Reason::RuleAllow);
        }
        let counters = fixture.harness.enforcer.counters().unwrap();
        let uncounted = fixture.harness.enforcer.overflow().unwrap().uncounted;
        // The counters of the policy before take up room until the next.
        if generation == 1 {
            assert_eq!((counters.len(), uncounted), (abi::HIGH_COUNTERS as usize, 8));
        } else {
            assert_eq!(counters.len() as u64 + uncounted - 8, ports.len() as u64);
        }
        assert!(counters.iter().all(|(_, counter)| (counter.packets, counter.bytes) == (1, 40)));
    }
    fixture.apply(&table, 3);
    fixture.egress(&ip4(6, OWN4, TOOL, &tcp(3, 1, SYN, b"")));
    let counters = fixture.harness.enforcer.counters().unwrap();
    assert_eq!(counters.len(), 1, "there is room again");
}
