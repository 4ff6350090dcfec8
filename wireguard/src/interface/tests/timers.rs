//! Each timer of section 6, in virtual time.

use super::{retransmit::next, *};

const DATA: u8 = 4;
const INITIATION: u8 = 1;

/// Two with a session that `a` began, to which nothing is due but what time brings.
fn connected() -> (Node, Node) {
    let start = Instant::now();
    let (mut a, mut b) = (Node::at(1, start), Node::at(2, start));
    a.set_peers(&[b.config("10.42.0.2/32")]);
    b.set_peers(&[a.config("10.42.0.1/32")]);
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    assert_eq!(b.sink.delivered.len(), 1);
    (a, b)
}

/// Sets both clocks without looking at the timers.
fn jump(a: &mut Node, b: &mut Node, seconds: u64) {
    a.now = a.start + Duration::from_secs(seconds);
    b.now = a.now;
}

#[test]
fn the_initiator_renews_a_session_of_two_minutes_when_it_sends() {
    let (mut a, mut b) = connected();
    jump(&mut a, &mut b, 119);
    a.send(&packet(A, B, b"y"));
    assert_eq!(a.kinds(), [DATA]);
    jump(&mut a, &mut b, 120);
    b.send(&packet(B, A, b"y"));
    assert_eq!(b.kinds(), [DATA], "not the responder");
    a.send(&packet(A, B, b"y"));
    a.send(&packet(A, B, b"y"));
    assert_eq!(
        a.sink.sent.iter().map(|(_, datagram)| datagram[0]).collect::<Vec<_>>(),
        [DATA, INITIATION, DATA]
    );
    exchange(&mut a, &mut b);
    a.send(&packet(A, B, b"y"));
    assert_eq!(a.kinds(), [DATA], "it is renewed");
    assert_eq!(a.peer().last_handshake(), Some(a.now));
}

#[test]
fn the_initiator_renews_a_session_when_it_only_receives_but_later() {
    for (seconds, expected) in [(164, vec![]), (165, vec![INITIATION])] {
        let (mut a, mut b) = connected();
        jump(&mut a, &mut b, seconds);
        b.send(&packet(B, A, b"y"));
        let (_, datagram) = b.sink.sent.pop_back().unwrap();
        a.receive(b.at, &datagram);
        assert_eq!((a.kinds(), a.sink.delivered.len()), (expected, 1));
    }
}

#[test]
fn a_session_is_dead_after_three_minutes_also_when_the_machine_stood_still() {
    let (mut a, mut b) = connected();
    jump(&mut a, &mut b, 179);
    b.send(&packet(B, A, b"y"));
    let (_, late) = b.sink.sent.pop_back().unwrap();
    jump(&mut a, &mut b, 180);
    a.receive(b.at, &late);
    assert_eq!((a.interface.drops().unauthenticated, a.sink.delivered.len()), (1, 0));
    a.send(&packet(A, B, b"z"));
    b.send(&packet(B, A, b"z"));
    let kinds = |node: &Node| node.sink.sent.iter().map(|(_, datagram)| datagram[0]).collect::<Vec<_>>();
    assert_eq!((kinds(&a), kinds(&b)), (vec![INITIATION], vec![INITIATION]));
    exchange(&mut a, &mut b);
    assert_eq!((a.sink.delivered.len(), b.sink.delivered.len()), (1, 2), "what waited has arrived");
}

#[test]
fn a_peer_that_does_not_answer_is_asked_for_a_minute_and_a_half() {
    let (mut a, _) = pair();
    a.send(&packet(A, B, b"x"));
    a.sink.sent.clear();
    let start = a.now;
    let mut at = vec![start];
    let mut last = Vec::new();
    while let Some(sent) = next(&mut a, Duration::from_secs(60)) {
        // Copies of the first one apart, which a quick search sends.
        if a.now > start + Duration::from_secs(4) {
            assert_ne!(sent[0].1, last);
            last = sent[0].1.clone();
            at.push(a.now);
        }
    }
    for pair in at.windows(2) {
        let wait = (pair[1] - pair[0]).as_millis();
        assert!((5000..=5333).contains(&wait), "{wait} ms");
    }
    let asked_for = (*at.last().unwrap() - start).as_secs();
    assert!((80..90).contains(&asked_for), "{asked_for} s");
    assert_eq!(a.interface.drops().queue, 1);
    // All that was secret is gone some time later, and nothing is left to do.
    assert_eq!(next(&mut a, Duration::from_secs(1000)), None);
    assert!(a.interface.poll_timeout().is_none() && a.interface.indices().is_empty());
}

#[test]
fn as_long_as_packets_come_an_absent_peer_is_asked() {
    let (mut a, _) = pair();
    for _ in 0..40 {
        a.send(&packet(A, B, b"x"));
        a.pass(Duration::from_secs(5));
    }
    a.sink.sent.clear();
    assert!(next(&mut a, Duration::from_secs(6)).is_some());
    assert_eq!(a.interface.drops().queue, 0);
}

#[test]
fn a_peer_that_is_kept_connected_is_asked_for_ever() {
    let (mut a, mut b) = pair();
    a.set_peers(&[PeerConfig { keepalive: Some(25), ..b.config("10.42.0.2/32") }]);
    for _ in 0..2000 {
        a.pass(Duration::from_secs(1));
    }
    a.sink.sent.clear();
    for _ in 0..31 {
        a.pass(Duration::from_secs(1));
    }
    b.now = a.now;
    let initiation = a.sink.sent.drain(..).next_back().unwrap();
    a.sink.sent.push_back(initiation);
    exchange(&mut a, &mut b);
    assert!(b.peer().last_handshake().is_some());
}

#[test]
fn who_receives_and_has_nothing_to_say_says_so_after_ten_seconds_once() {
    let (mut a, mut b) = connected();
    a.send(&packet(A, B, b"y"));
    exchange(&mut a, &mut b);
    let keepalive = next(&mut b, Duration::from_secs(60)).unwrap();
    assert_eq!((b.now - b.start).as_secs(), 10);
    assert_eq!(keepalive[0].1.len(), 32);
    a.now = b.now;
    a.receive(b.at, &keepalive[0].1);
    assert_eq!(a.sink.delivered.len(), 0);
    // No answer to answers.
    assert_eq!(next(&mut b, Duration::from_secs(60)), None);
    assert_eq!(next(&mut a, Duration::from_secs(60)), None);
}

#[test]
fn an_answer_of_its_own_makes_a_keepalive_needless() {
    let (_, mut b) = connected();
    b.pass(Duration::from_secs(9));
    b.send(&packet(B, A, b"answer"));
    b.sink.sent.clear();
    // It hears nothing itself now: the peer may have forgotten it.
    assert_eq!(next(&mut b, Duration::from_secs(16)).map(|sent| sent[0].1[0]), Some(INITIATION));
    assert_eq!((b.now - b.start).as_secs(), 9 + 15);
}

#[test]
fn persistent_keepalives_go_out_when_all_is_quiet() {
    let (mut a, mut b) = pair();
    a.set_peers(&[PeerConfig { keepalive: Some(25), ..b.config("10.42.0.2/32") }]);
    exchange(&mut a, &mut b);
    let start = a.now;
    for round in 1..4 {
        let sent = next(&mut a, Duration::from_secs(26)).unwrap();
        assert_eq!((sent[0].1[0], sent[0].1.len(), (a.now - start).as_secs()), (DATA, 32, 25 * round));
    }
    a.set_peers(&[b.config("10.42.0.2/32")]);
    assert_eq!(next(&mut a, Duration::from_secs(60)), None);
}

#[test]
fn secrets_are_wiped_when_they_are_long_of_no_use() {
    let (mut a, mut b) = connected();
    let keepalive = next(&mut b, Duration::from_secs(11)).unwrap();
    a.receive(b.at, &keepalive[0].1);
    for node in [&mut a, &mut b] {
        assert_eq!(next(node, Duration::from_secs(500)), None);
        node.now = node.start + Duration::from_millis(539_999);
        node.pass(Duration::ZERO);
        assert!(!node.interface.indices().is_empty());
        node.pass(Duration::from_millis(1));
        assert!(node.interface.indices().is_empty() && node.interface.poll_timeout().is_none());
    }
}
