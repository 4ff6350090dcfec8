//! Which addresses are the sandbox's, and the first policy of one.

use super::*;

#[test]
fn an_address_counts_on_its_own_link() {
    let mut fixture = Fixture::with(&table());
    let of_own6 = ip6(6, OWN6, TOOL6, &tcp(1111, 8080, SYN, b""));
    let to_own = ip4(6, CALLER, OWN4, &tcp(1, 9000, SYN, b""));
    let own = [OWN4.into(), OWN6.into()];

    fixture.harness.enforcer.own.set(Fixture::LINK, &own).unwrap();
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow, "tied to this link");
    assert_eq!(fixture.egress_frame(&arp(OWN4)), Reason::LinkControl);

    fixture.harness.enforcer.own.set(Fixture::LINK + 1, &own).unwrap();
    for packet in [syn4(TOOL, 8080), of_own6] {
        assert_eq!(fixture.egress(&packet), Reason::Spoofed, "a known flow is no way around");
        assert!(fixture.answer(&packet).is_some());
    }
    let refused = fixture.judge_frame(Direction::Egress, &arp(OWN4));
    assert_eq!(refused, (Reason::Spoofed, Outcome::Drop));
    assert_eq!(fixture.ingress(&to_own), Reason::DefaultDeny);
    let foreign = ip4(6, [10, 42, 0, 3], TOOL, &tcp(1111, 8080, SYN, b""));
    assert_eq!(fixture.answer(&foreign), None, "a lie has no answer");
}

#[test]
fn more_addresses_than_there_is_room_for_change_nothing() {
    let mut fixture = Fixture::with(&table());
    let many: Vec<std::net::IpAddr> = (0..=255).map(|n| [10, 9, 9, n].into()).collect();
    let own = &mut fixture.harness.enforcer.own;
    assert!(matches!(own.set(Fixture::LINK, &many), Err(EbpfError::TooManyAddresses(258))));
    assert!(matches!(own.set(Fixture::LINK, &many[..63]), Err(EbpfError::TooManyAddresses(65))));
    own.set(Fixture::LINK, &many[..62]).unwrap();
    own.set(Fixture::LINK, &many[100..162]).unwrap();
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let first = ip4(6, [10, 9, 9, 0], TOOL, &tcp(1111, 8080, SYN, b""));
    assert_eq!(fixture.egress(&first), Reason::Spoofed);
}
