//! What no honest sender makes.

use std::cell::RefCell;

use lattice_policy::{Direction, Reason, Table};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

use crate::{Judge, packet::*};

/// Packets of all kinds, to be damaged.
pub fn seeds() -> [Vec<u8>; 8] {
    let chain =
        [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[44, 0, 0, 0, 0, 0, 0, 0], &fragment6(17, true, 0, &udp(1, 2))]
            .concat();
    let sent = ip6(6, OWN6, TOOL6, &tcp(1, 2, SYN, b"payload"));
    [
        ip4(6, OWN4, TOOL, &tcp(1, 2, SYN, b"payload")),
        ip4(17, OWN4, TOOL, &udp(1, 2)),
        ip4(1, OWN4, TOOL, &icmp(3, 4, 0, &[0x45; 40])),
        fragment4(ip4(17, OWN4, TOOL, &udp(1, 2)), true, 0),
        sent.clone(),
        ip6(0, OWN6, TOOL6, &chain),
        ip6(58, OWN6, TOOL6, &icmp(1, 0, 0, &sent)),
        ip6(44, OWN6, TOOL6, &fragment6(17, false, 100, &[0; 64])),
    ]
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let seed = select(seeds().to_vec());
    (seed, vec((0..100usize, any::<u8>()), 0..6), 0..120usize).prop_map(|(mut packet, damage, length)| {
        packet.truncate(length);
        for (at, value) in damage {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        packet
    })
}

/// Damaged packets, and what never was one.
pub fn packets() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => damaged(),
        1 => vec(any::<u8>(), 0..200),
        1 => (select(vec![0x45u8, 0x46, 0x60]), vec(any::<u8>(), 0..100))
            .prop_map(|(first, rest)| [vec![first], rest].concat()),
    ]
}

/// The packet with its addresses the other way round.
fn turned(mut packet: Vec<u8>) -> Vec<u8> {
    let (at, len) = if packet[0] >> 4 == 4 { (12, 4) } else { (8, 16) };
    packet[at..at + 2 * len].rotate_left(len);
    packet
}

pub fn nothing_passes_an_empty_policy<J: Judge>() {
    let judge = RefCell::new(J::new());
    for _ in 0..2 {
        let mut runner = TestRunner::new(ProptestConfig::with_cases(4000));
        let denied = |(packet, out): (Vec<u8>, bool)| {
            let judge = &mut *judge.borrow_mut();
            let reason = judge.judge(if out { Direction::Egress } else { Direction::Ingress }, &packet);
            prop_assert!(!matches!(reason, Reason::RuleAllow | Reason::Established), "{:?}", reason);
            if !out || reason == Reason::LinkControl {
                return Ok(());
            }
            // An answer is a packet that can be judged, and would get none itself.
            if let Some(answer) = judge.answer(&packet) {
                prop_assert!(judge.ingress(&answer) != Reason::Malformed, "{:x?}", answer);
                prop_assert_eq!(judge.answer(&turned(answer)), None);
            }
            Ok(())
        };
        runner.run(&(packets(), any::<bool>()), denied).unwrap();
        // At first there is none at all.
        judge.borrow_mut().apply(&Table::default(), 1);
    }
}
