//! Copies of an interface, as a restored snapshot or a cloned machine makes them. An interface cannot be cloned, so a copy
//! here is another one with the same sources to which the same happened.

use super::*;

/// `a` after a handshake with `b`, made anew from the same randomness at the same time: a copy, byte for byte.
fn copies(start: Instant) -> (Node, Node, Node) {
    let make = || {
        let (mut a, mut b) = (Node::at(1, start), Node::at(2, start));
        a.set_peers(&[b.config("10.42.0.2/32")]);
        b.set_peers(&[a.config("10.42.0.1/32")]);
        a.send(&packet(A, B, b"x"));
        exchange(&mut a, &mut b);
        (a, b)
    };
    let ((a, b), (copy, _)) = (make(), make());
    (a, copy, b)
}

#[test]
fn a_copy_that_is_told_so_never_uses_a_key_of_the_other() {
    let (mut a, mut copy, mut b) = copies(Instant::now());
    // What would happen otherwise: one key and one counter for two packets.
    let mut untold = copies(a.start).1;
    for (node, payload) in [(&mut a, b"one"), (&mut untold, b"two")] {
        node.send(&packet(A, B, payload));
    }
    let header = |node: &Node| node.sink.sent.back().unwrap().1[..16].to_vec();
    assert_eq!(header(&a), header(&untold), "the same session and counter");
    assert_ne!(a.sink.sent.back(), untold.sink.sent.back());

    // The kernel's randomness differs from copy to copy.
    copy.seed.store(99, Ordering::Relaxed);
    copy.now += Duration::from_secs(1);
    copy.tell_time();
    copy.interface.forget_sessions(copy.now, &mut copy.sink);
    assert!(copy.sink.sent.is_empty() && copy.interface.indices().is_empty());
    copy.send(&packet(A, B, b"two"));
    assert_eq!(copy.sink.sent.iter().map(|(_, datagram)| datagram[0]).collect::<Vec<_>>(), [1]);
    b.now = copy.now;
    exchange(&mut copy, &mut b);
    assert_eq!(b.sink.delivered, [packet(A, B, b"x"), packet(A, B, b"two")]);

    // A datagram of the old session means nothing to it.
    let (mut a, mut copy, mut b) = copies(Instant::now());
    a.interface.forget_sessions(a.now, &mut a.sink);
    copy.sink.sent.clear();
    b.send(&packet(B, A, b"old"));
    exchange(&mut a, &mut b);
    assert_eq!((a.sink.delivered.len(), a.interface.drops().unknown_peer), (0, 1));
}

#[test]
fn a_copy_nobody_tells_of_ends_its_sessions_by_its_clock() {
    let (_, mut copy, _) = copies(Instant::now());
    copy.now += Duration::from_secs(180);
    copy.send(&packet(A, B, b"late"));
    assert_eq!(copy.kinds(), [1]);
}

#[test]
fn peers_to_be_kept_connected_are_asked_at_once_and_replays_stay_replays() {
    let (mut a, mut b) = pair();
    a.set_peers(&[PeerConfig { keepalive: Some(25), ..b.config("10.42.0.2/32") }]);
    let initiation = a.sink.sent[0].1.clone();
    exchange(&mut a, &mut b);
    b.interface.forget_sessions(b.now, &mut b.sink);
    b.pass(Duration::from_secs(1));
    b.sink.sent.clear();
    b.receive(a.at, &initiation);
    assert!(b.sink.sent.is_empty());

    a.now = b.now;
    a.tell_time();
    a.interface.forget_sessions(a.now, &mut a.sink);
    exchange(&mut a, &mut b);
    assert_eq!((a.peer().last_handshake(), b.peer().last_handshake()), (Some(a.now), Some(b.now)));
}
