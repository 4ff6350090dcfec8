//! Events and counters.

use lattice_policy::{Action, Counter, Direction, Reason, RuleId, Table};

use crate::{fixture::*, packet::*};

#[test]
fn each_new_flow_is_told_and_a_denied_one_once_a_second() {
    let mut fixture = Fixture::with(&table());
    for _ in 0..3 {
        fixture.egress(&syn4(TOOL, 8080));
        fixture.egress(&syn4(TOOL, 22));
    }
    fixture.ingress(&ip4(17, TOOL, OWN4, &udp(53, 4444)));
    let told = fixture.told();
    let said: Vec<_> =
        told.iter().map(|f| (f.direction, f.action, f.reason, f.rule.0, f.src, f.dst)).collect();
    let own = |port| (OWN4, port).into();
    let tool = |port| (TOOL, port).into();
    assert_eq!(
        said,
        [
            (Direction::Egress, Action::Allow, Reason::RuleAllow, 1, own(1111), tool(8080)),
            (Direction::Egress, Action::Deny, Reason::DefaultDeny, 0, own(1111), tool(22)),
            (Direction::Ingress, Action::Deny, Reason::DefaultDeny, 0, tool(53), own(4444)),
        ]
    );
    assert!(told.iter().all(|f| f.generation == 1 && f.at_ns == fixture.now_ns && f.link == 0));
    assert_eq!((told[0].proto, told[0].bytes), (6, 40));

    fixture.now_ns += SECOND - 1;
    fixture.egress(&syn4(TOOL, 22));
    assert_eq!(fixture.told(), []);
    fixture.now_ns += 1;
    fixture.egress(&syn4(TOOL, 22));
    assert_eq!(fixture.told().len(), 1);
}

#[test]
fn what_cannot_be_read_is_told_as_far_as_it_was_read() {
    let mut fixture = Fixture::new();
    let v6_short = ip6(6, v6(OWN6), v6("2001:db8::1"), &[0; 4]);
    for packet in [&[][..], &[0x45, 0], &ip4(132, OWN4, TOOL, &[0; 20]), &v6_short] {
        fixture.egress(packet);
    }
    fixture.egress(&ip4(1, OWN4, TOOL, &icmp(8, 0, 77, b"")));
    let told = fixture.told();
    let said: Vec<_> =
        told.iter().map(|f| (f.reason, f.proto, f.src.to_string(), f.dst.to_string(), f.bytes)).collect();
    let text = |src: &str, dst: &str| (src.to_owned(), dst.to_owned());
    let expected = [
        (Reason::Malformed, 0, text("0.0.0.0:0", "0.0.0.0:0"), 0),
        (Reason::Protocol, 132, text("10.42.0.2:0", "192.0.2.1:0"), 40),
        (Reason::Malformed, 6, text("[fd00::2]:0", "[2001:db8::1]:0"), 44),
        (Reason::NoPolicy, 1, text("10.42.0.2:0", "192.0.2.1:0"), 28),
    ];
    assert_eq!(said, expected.map(|(reason, proto, (src, dst), bytes)| (reason, proto, src, dst, bytes)));
    assert!(told.iter().all(|flow| flow.generation == 0 && flow.rule == RuleId::NONE));
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
fn counters_are_by_rule_and_begin_with_the_policy() {
    let mut fixture = Fixture::with(&table());
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b"data"));
    fixture.egress(&syn4(TOOL, 8080));
    fixture.ingress(&reply);
    fixture.ingress(&reply);
    fixture.egress(&syn4([192, 0, 2, 66], 80));
    fixture.egress(&syn4(TOOL, 81));
    fixture.egress(&ip4(132, OWN4, TOOL, &[0; 20]));
    let count = |packets, bytes| Counter { packets, bytes };
    assert_eq!(
        fixture.filter.counters(),
        [(RuleId::NONE, count(1, 40)), (RuleId(1), count(3, 40 + 44 + 44)), (RuleId(4), count(1, 40))]
    );
    fixture.apply(&table(), 1);
    assert_eq!(fixture.filter.counters(), []);
    // What belongs to a datagram or is about a flow counts with it.
    fixture.egress(&fragment4(ip4(17, OWN4, TOOL, &udp(1, 53)), true, 0));
    fixture.egress(&fragment4(ip4(17, OWN4, TOOL, &[0; 60]), false, 100));
    let sent = ip4(17, OWN4, TOOL, &udp(1, 53));
    fixture.ingress(&ip4(1, [198, 51, 100, 9], OWN4, &icmp(3, 4, 0, &sent[..28])));
    assert_eq!(fixture.filter.counters(), [(RuleId(2), count(3, 40 + 80 + 56))]);
    fixture.apply(&table(), 1);
    fixture.ingress(&reply);
    assert_eq!(fixture.filter.counters(), [(RuleId(1), count(1, 44))]);
    fixture.apply(&Table::default(), 2);
    fixture.ingress(&reply);
    assert_eq!(fixture.filter.counters(), [(RuleId::NONE, count(1, 44))]);
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
