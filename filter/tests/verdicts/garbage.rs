//! What no honest sender makes.

use lattice_policy::{Action, Direction, Proto, Table};
use proptest::{collection::vec, prelude::*};

use crate::{fixture::*, packet::*};

fn seeds() -> [Vec<u8>; 8] {
    let peer = v6("2001:db8::1");
    let chain =
        [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[44, 0, 0, 0, 0, 0, 0, 0], &fragment6(17, true, 0, &udp(1, 2))]
            .concat();
    let sent = ip6(6, v6(OWN6), peer, &tcp(1, 2, SYN, b"payload"));
    [
        ip4(6, OWN4, TOOL, &tcp(1, 2, SYN, b"payload")),
        ip4(17, OWN4, TOOL, &udp(1, 2)),
        ip4(1, OWN4, TOOL, &icmp(3, 4, 0, &[0x45; 40])),
        fragment4(ip4(17, OWN4, TOOL, &udp(1, 2)), true, 0),
        sent.clone(),
        ip6(0, v6(OWN6), peer, &chain),
        ip6(58, v6(OWN6), peer, &icmp(1, 0, 0, &sent)),
        ip6(44, v6(OWN6), peer, &fragment6(17, false, 100, &[0; 64])),
    ]
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (0..8usize, vec((0..100usize, any::<u8>()), 0..6), 0..120usize).prop_map(|(seed, damage, length)| {
        let mut packet = seeds()[seed].clone();
        packet.truncate(length);
        for (at, value) in damage {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        packet
    })
}

fn packets() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => damaged(),
        1 => vec(any::<u8>(), 0..200),
        1 => (prop::sample::select(vec![0x45u8, 0x46, 0x60]), vec(any::<u8>(), 0..100))
            .prop_map(|(first, rest)| [vec![first], rest].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn nothing_passes_an_empty_policy(packet in packets(), out: bool) {
        let direction = if out { Direction::Egress } else { Direction::Ingress };
        let mut fixture = Fixture::new();
        for _ in 0..2 {
            let decision = fixture.decide(direction, &packet);
            prop_assert_eq!(decision.action, Action::Deny);
            // An answer is a packet that the filter could judge, and gets none itself.
            if let Some(answer) = fixture.filter.refusal(&packet, decision.reason) {
                let heard = fixture.decide(Direction::Ingress, &answer).reason;
                prop_assert!(!matches!(heard, lattice_policy::Reason::Malformed), "{:x?}", answer);
                prop_assert_eq!(fixture.filter.refusal(&answer, lattice_policy::Reason::NoPolicy), None);
            }
            fixture.apply(&Table::default(), 1);
        }
    }
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
