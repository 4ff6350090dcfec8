//! Fragments of datagrams.

use lattice_policy::{Reason, Table};

use crate::{Judge, packet::*, table::*};

pub fn later_fragments_follow_their_first<J: Judge>() {
    let mut judge = J::with(&table());
    let later4 = fragment4(ip4(17, OWN4, TOOL, &[0; 64]), false, 100);
    assert_eq!(judge.egress(&later4), Reason::Fragment, "its first was not seen");
    assert_eq!(judge.egress(&fragment4(ip4(17, OWN4, TOOL, &udp(1, 54)), true, 0)), Reason::DefaultDeny);
    assert_eq!(judge.egress(&later4), Reason::Fragment, "its first was denied");
    assert_eq!(judge.egress(&fragment4(ip4(17, OWN4, TOOL, &udp(1, 53)), true, 0)), Reason::RuleAllow);
    assert_eq!(judge.egress(&later4), Reason::Established);
    let other = fragment4(ip4(6, OWN4, TOOL, &[0; 64]), false, 100);
    assert_eq!(judge.egress(&other), Reason::Fragment, "other protocol");
    assert_eq!(judge.ingress(&fragment4(ip4(17, TOOL, OWN4, &[0; 64]), false, 100)), Reason::Fragment);

    let fragment =
        |next, more, offset, payload: &[u8]| ip6(44, OWN6, TOOL6, &fragment6(next, more, offset, payload));
    assert_eq!(judge.egress(&fragment(17, false, 100, &[0; 64])), Reason::Fragment);
    // Ports behind the end that the header claims: a receiver would take them from a later fragment.
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let mut padded = fragment(60, true, 0, &options);
    padded.extend(udp(1, 53));
    assert_eq!(judge.egress(&padded), Reason::Malformed);
    assert_eq!(judge.egress(&fragment(17, false, 100, &[0; 64])), Reason::Fragment);
    assert_eq!(judge.egress(&fragment(17, true, 0, &udp(1, 53))), Reason::RuleAllow);
    assert_eq!(judge.egress(&fragment(17, false, 100, &[0; 64])), Reason::Established);

    judge.apply(&Table::default(), 2);
    assert_eq!(judge.egress(&later4), Reason::Fragment, "allowed by an older policy");
}
