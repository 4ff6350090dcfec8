//! Whatever may come.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_datagram_may_come_and_any_packet(
        datagrams in prop::collection::vec((0u8..6, prop::collection::vec(any::<u8>(), 0..1600)), 1..8),
        lens in prop::sample::select(vec![32usize, 64, 92, 148]),
        at in any::<u32>(),
    ) {
        let (mut a, mut b) = pair();
        a.send(&packet(A, B, b"x"));
        exchange(&mut a, &mut b);
        let delivered = b.sink.delivered.len();
        let index = b.interface.indices()[0];
        for (kind, mut datagram) in datagrams {
            b.send(&datagram);
            datagram.resize(lens, 0);
            datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
            // To a session that is, and to one that is not.
            for to in [index, at] {
                datagram[4..8].copy_from_slice(&to.to_le_bytes());
                b.receive(SocketAddr::from(([203, 0, 113, 1], 1)), &datagram);
            }
            b.pass(Duration::from_millis(100));
        }
        let errors = b.sink.delivered[delivered..].iter().all(|packet| matches!(packet[9], 1) || packet[6] == 58);
        prop_assert!(errors, "nothing but ICMP errors for what was sent");
        prop_assert_eq!(b.interface.peers().next().unwrap().path().and_then(|path| path.remote()), Some(a.at));
        prop_assert!(b.interface.indices().len() <= 2);
    }

    #[test]
    fn garbage_changes_nothing(
        kind in 0u8..6,
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        flip in 0usize..148,
    ) {
        let (mut a, mut b) = pair();
        a.send(&packet(A, B, b"x"));
        exchange(&mut a, &mut b);
        for mut datagram in datagrams {
            if datagram.len() > 4 {
                datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            b.receive(SocketAddr::from(([203, 0, 113, 1], 1)), &datagram);
            b.send(&datagram);
        }
        let mut stranger = Node::new(2);
        stranger.set_peers(&[a.config("10.42.0.1/32")]);
        a.set_peers(&[]);
        a.set_peers(&[b.config("10.42.0.2/32")]);
        a.send(&packet(A, B, b"x"));
        let (_, mut initiation) = a.sink.sent.pop_front().unwrap();
        initiation[flip] ^= 0x40;
        stranger.receive(a.at, &initiation);
        // The last sixteen bytes are the cookie's MAC, which is not looked at without load.
        prop_assert_eq!(stranger.sink.sent.is_empty(), flip < 132);
        prop_assert_eq!(b.sink.delivered.len(), 1);
        prop_assert_eq!(b.interface.peers().next().unwrap().path().and_then(|path| path.remote()), Some(a.at));
    }
}
