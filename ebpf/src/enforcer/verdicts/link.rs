//! What only a link with an Ethernet header has: other protocols than IP, link control, and answers told by their mark.

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use super::*;

#[test]
fn arp_waits_for_a_policy() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.egress_frame(&arp(OWN4)), Reason::NoPolicy);
    fixture.apply(&Table::default(), 1);
    assert_eq!(fixture.egress_frame(&arp(OWN4)), Reason::LinkControl);
}

#[test]
fn only_ip_passes_and_no_group_of_the_link() {
    let any = [line(Proto::Any, None, Action::Allow, 1)];
    let mut fixture = Fixture::with(&Table { egress: vec![entry("0.0.0.0/0", &any)], ingress: vec![] });
    for ether_type in [0x8100, 0x88a8, 0x8847, 0x8863, 0x0842] {
        assert_eq!(fixture.egress_frame(&frame(ether_type, &[0x45; 60])), Reason::Protocol, "{ether_type:x}");
    }
    let version5 = [&[0x55][..], &syn4(TOOL, 8080)[1..]].concat();
    assert_eq!(
        fixture.egress_frame(&frame(0x0800, &version5)),
        Reason::Malformed,
        "version 5 in an IPv4 frame"
    );
    let mut broadcast = ethernet(&ip4(17, OWN4, [10, 42, 255, 255], &udp(1, 53)));
    broadcast[..6].fill(0xff);
    assert_eq!(fixture.egress_frame(&broadcast), Reason::Multicast);
}

#[test]
fn link_control_is_only_what_a_link_needs() {
    let mut fixture = Fixture::with(&Table::default());
    assert_eq!(fixture.egress_frame(&arp(OWN4)), Reason::LinkControl);
    assert_eq!(fixture.egress_frame(&arp([0; 4])), Reason::LinkControl);
    assert_eq!(fixture.egress_frame(&arp([10, 42, 0, 1])), Reason::Spoofed);
    assert_eq!(fixture.egress_frame(&frame(0x0806, &[0; 28])), Reason::Malformed);

    let nd = |kind, src| ip6(58, src, v6("ff02::1"), &icmp(kind, 0, 0, &[0; 16]));
    for kind in [133, 135, 136] {
        assert_eq!(fixture.egress(&nd(kind, v6("fe80::1"))), Reason::LinkControl, "{kind}");
    }
    assert_eq!(fixture.egress(&nd(134, v6("fe80::1"))), Reason::Protocol, "the agent is no router");
    assert_eq!(fixture.ingress(&nd(134, v6("fe80::2"))), Reason::LinkControl);
    assert_eq!(fixture.egress(&nd(135, v6("fd00::3"))), Reason::Spoofed);
    let mut routed = nd(135, OWN6);
    routed[7] = 254;
    assert_eq!(fixture.egress(&routed), Reason::Multicast, "not with a hop limit that routers have lowered");
}

#[test]
fn an_answer_is_let_in_by_its_mark() {
    let mut fixture = Fixture::with(&Table::default());
    let reset = ethernet(&ip4(6, TOOL, OWN4, &tcp(22, 1111, RST | ACK, b"")));
    let mut run = |frame: &[u8], direction, mark| fixture.harness.run(frame, direction, mark).unwrap();
    assert_eq!(run(&reset, Direction::Ingress, 0x4c54_5243), Outcome::Pass);
    assert_eq!(run(&reset, Direction::Ingress, 0x4c54_5242), Outcome::Drop);
    let denied = run(&ethernet(&syn4(TOOL, 22)), Direction::Egress, 0x4c54_5243);
    assert!(matches!(denied, Outcome::Answer(_)), "no pass for the agent");
}

#[test]
fn no_damaged_frame_passes_an_empty_policy() {
    let seeds = lattice_verdicts::garbage::seeds().map(|packet| ethernet(&packet));
    let damage = vec((12..100usize, any::<u8>()), 0..6);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(4000));
    let fixture = std::cell::RefCell::new(Fixture::with(&Table::default()));
    runner
        .run(&(0..seeds.len(), damage, 54..120usize, any::<bool>()), |(seed, damage, length, out)| {
            let mut frame = seeds[seed].clone();
            frame.truncate(length);
            for (at, value) in damage {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            let direction = if out { Direction::Egress } else { Direction::Ingress };
            let (reason, _) = fixture.borrow_mut().judge_frame(direction, &frame);
            // Of the reasons that allow, only the third is possible here.
            prop_assert!(!matches!(reason, Reason::RuleAllow | Reason::Established), "{:x?}", frame);
            Ok(())
        })
        .unwrap();
}
