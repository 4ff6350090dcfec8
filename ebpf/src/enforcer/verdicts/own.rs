//! Which addresses are the sandbox's, and the first policy of one.

use super::*;

/// `BPF_PROG_TEST_RUN` runs on the loopback, whose index is 1.
#[test]
fn an_address_counts_on_its_own_link() {
    let mut fixture = Fixture::with(&table());
    let of_own6 = ip6(6, v6(OWN6), v6("2001:db8::1"), &tcp(1111, 8080, SYN, b""));
    let arp = frame(
        0x0806,
        &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 42, 0, 2, 0, 0, 0, 0, 0, 0, 10, 42, 0, 1],
    );
    let to_own = ip4(6, [192, 0, 2, 7], OWN4, &tcp(1, 9000, SYN, b""));
    let own = [OWN4.into(), OWN6.parse().unwrap()];

    fixture.harness.enforcer.own.set(1, &own).unwrap();
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow, "tied to this link");
    assert_eq!(fixture.egress(&arp), Reason::LinkControl);

    fixture.harness.enforcer.own.set(2, &own).unwrap();
    for frame in [syn4(TOOL, 8080), of_own6] {
        assert_eq!(fixture.egress(&frame), Reason::Spoofed, "a known flow is no way around");
        fixture.answer(&frame);
    }
    assert_eq!(fixture.egress(&arp), Reason::Spoofed);
    assert_eq!(fixture.run(Direction::Egress, &arp, 0), Outcome::Drop);
    assert_eq!(fixture.ingress(&to_own), Reason::DefaultDeny);
    let foreign = ip4(6, [10, 42, 0, 3], TOOL, &tcp(1111, 8080, SYN, b""));
    assert_eq!(fixture.run(Direction::Egress, &foreign, 0), Outcome::Drop, "a lie has no answer");
}

#[test]
fn more_addresses_than_there_is_room_for_change_nothing() {
    let mut fixture = Fixture::with(&table());
    let many: Vec<std::net::IpAddr> = (0..=255).map(|n| [10, 9, 9, n].into()).collect();
    let own = &mut fixture.harness.enforcer.own;
    assert!(matches!(own.set(1, &many), Err(EbpfError::TooManyAddresses(258))));
    assert!(matches!(own.set(1, &many[..63]), Err(EbpfError::TooManyAddresses(65))));
    own.set(1, &many[..62]).unwrap();
    own.set(1, &many[100..162]).unwrap();
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let first = ip4(6, [10, 9, 9, 0], TOOL, &tcp(1111, 8080, SYN, b""));
    assert_eq!(fixture.egress(&first), Reason::Spoofed);
}

#[test]
fn the_first_policy_is_whole_whatever_came_before() {
    let pin = lattice_policy::Pin {
        address: TOOL.into(),
        matches: vec![line(Proto::Any, None, Action::Allow, 1)],
        until_ns: u64::MAX,
    };
    let mut fixture = Fixture::new();
    fixture.harness.enforcer.pin(&[pin]).unwrap();
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::NoPolicy);
    fixture.apply(&table(), 1);
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    assert_eq!(fixture.egress(&syn4(TOOL, 22)), Reason::DefaultDeny);
}
