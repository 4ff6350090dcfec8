//! What no honest sender makes, or not without an Ethernet link.

use lattice_policy::{Action, Direction, Proto, Reason, Table};
use lattice_verdicts::{Judge as _, garbage::packets, packet::*, table::*};
use proptest::{collection::vec, prelude::*};

use crate::fixture::Fixture;

#[test]
fn what_has_no_header_is_malformed() {
    let mut fixture = Fixture::with(&table());
    for packet in [&[][..], &syn4(TOOL, 8080)[..19], &[0x60; 39]] {
        assert_eq!(fixture.egress(packet), Reason::Malformed, "{packet:x?}");
        assert_eq!(fixture.answer(packet), None);
    }
    let told = fixture.told();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].src.to_string(), told[0].bytes), ("0.0.0.0:0".into(), 0));
    for version in [0x05, 0x15, 0x55, 0x75, 0xf5] {
        assert_eq!(fixture.egress(&[version; 60]), Reason::Protocol, "{version:x}");
    }
}

#[test]
fn neighbour_discovery_is_icmp_to_a_group() {
    let any = [line(Proto::Any, None, Action::Allow, 1)];
    let mut fixture = Fixture::with(&Table { egress: vec![entry("::/0", &any)], ingress: vec![] });
    let solicitation = ip6(58, OWN6, v6("ff02::1:ff00:1"), &icmp(135, 0, 0, &[0; 16]));
    assert_eq!(fixture.egress(&solicitation), Reason::Multicast, "it is for Ethernet links");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Where everything is allowed, garbage reaches the tables of flows and fragments too.
    #[test]
    fn nothing_upsets_a_filter_that_allows_everything(
        packets in vec((packets(), any::<bool>(), 0..200u64), 1..200),
    ) {
        let any = [line(Proto::Any, None, Action::Allow, 1)];
        let everything = vec![entry("0.0.0.0/0", &any), entry("::/0", &any)];
        let mut fixture = Fixture::with(&Table { egress: everything.clone(), ingress: everything });
        for (packet, out, seconds) in packets {
            fixture.pass(seconds);
            fixture.decide(if out { Direction::Egress } else { Direction::Ingress }, &packet);
        }
    }
}
