//! For which reasons a packet has an answer.

use lattice_policy::{Reason, Table};
use lattice_verdicts::{Judge as _, packet::*};

use crate::fixture::Fixture;

const NOWHERE: [u8; 4] = [198, 51, 100, 1];

#[test]
fn only_what_was_denied_for_its_destination_is_answered() {
    let fixture = Fixture::with(&Table::default());
    let packet = syn4(NOWHERE, 22);
    for reason in [Reason::RuleDeny, Reason::DefaultDeny, Reason::NoPolicy] {
        assert!(fixture.filter.refusal(&packet, reason).is_some(), "{reason:?}");
    }
    for reason in [
        Reason::RuleAllow,
        Reason::Established,
        Reason::Malformed,
        Reason::Protocol,
        Reason::Fragment,
        Reason::Spoofed,
        Reason::Multicast,
        Reason::LinkControl,
    ] {
        assert_eq!(fixture.filter.refusal(&packet, reason), None, "{reason:?}");
    }
    let later = fragment4(ip4(17, OWN4, NOWHERE, &[0; 64]), false, 9);
    assert_eq!(fixture.filter.refusal(&later, Reason::NoPolicy), None);
}
